/**
 * Markdown to a tree, without losing a character: the leaves of the tree, in order, are the whole text. What only
 * marks the form ("**", "- ", a fence) is a leaf that is marked so. A subset: headings, paragraphs, lists, quotes,
 * code, tables, rules; and within a line what inline.js knows.
 *
 * A leaf is {from, to}, of the text. A branch is {tag, children}, with className, start (of an ordered list) or
 * language (of code).
 */

import { inline, leaf, mark } from "./inline.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( {1,4}|\t|$)/;
const QUOTE = /^ {0,3}> ?/;
const DIVIDER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
// What ends a paragraph. A number other than 1 does not: it is more likely a year at the beginning of a line.
const BEGINNINGS = [FENCE, HEADING, RULE, QUOTE, /^ {0,3}(?:[-*+]|1[.)])[ \t]/];
const DEEPEST = 12; // of lists and quotes in each other

/** The blocks of the text from an offset on, at which a block begins. Each is a branch and has `from`. */
export function parse(text, from = 0) {
  return blocks(text, linesOf(text, from), 0);
}

/**
 * A line: from, where its text begins without what its containers took (at), where that ends (to), and where the
 * next line begins (end).
 */
function linesOf(text, from) {
  const lines = [];
  while (from < text.length) {
    const found = text.indexOf("\n", from);
    const [to, end] = found < 0 ? [text.length, text.length] : [found, found + 1];
    lines.push({ from, at: from, to, end });
    from = end;
  }
  return lines;
}

function blocks(text, lines, depth) {
  const found = [];
  for (let i = 0; i < lines.length; ) {
    const [block, next] = blockAt(text, lines, i, depth);
    block.from = lines[i].from;
    found.push(block);
    i = next;
  }
  return found;
}

const content = (text, line) => text.slice(line.at, line.to);
const branch = (tag, children, more = {}) => ({ tag, children, ...more });
const before = (line) => mark(line.from, line.at);
const after = (line) => mark(line.to, line.end);

/** The block that begins with line i, and the number of the line after it. */
function blockAt(text, lines, i, depth) {
  const line = lines[i];
  const own = content(text, line);
  const until = (good) => {
    let end = i + 1;
    while (end < lines.length && good(content(text, lines[end]))) end += 1;
    return end;
  };
  if (!own.trim()) {
    const end = until((next) => !next.trim());
    return [branch("span", [mark(line.from, lines[end - 1].end)], { className: "mark" }), end];
  }
  const fence = FENCE.exec(own);
  if (fence) return code(text, lines, i, fence);
  const heading = HEADING.exec(own);
  if (heading) {
    const at = line.at + heading[0].length;
    const inner = [mark(line.from, at), ...inline(text, at, line.to), after(line)];
    return [branch("div", inner, { className: `heading h${heading[1].length}` }), i + 1];
  }
  if (RULE.test(own)) return [branch("div", [mark(line.from, line.end)], { className: "rule" }), i + 1];
  if (QUOTE.test(own) && depth < DEEPEST) {
    const end = until((next) => QUOTE.test(next));
    const inner = lines.slice(i, end).map((one) => ({ ...one, at: one.at + QUOTE.exec(content(text, one))[0].length }));
    return [branch("blockquote", blocks(text, inner, depth + 1)), end];
  }
  if (ITEM.test(own) && depth < DEEPEST) return list(text, lines, i, depth);
  if (own.includes("|") && i + 1 < lines.length && isDivider(content(text, lines[i + 1]))) {
    const end = until((next) => next.includes("|"));
    return [table(text, lines.slice(i, end)), end];
  }
  const end = until((next) => next.trim() && !BEGINNINGS.some((form) => form.test(next)));
  const inner = lines.slice(i, end).flatMap((one, number) => [
    before(one),
    ...inline(text, one.at, one.to),
    i + number === end - 1 ? after(one) : leaf(one.to, one.end),
  ]);
  return [branch("p", inner), end];
}

const isDivider = (own) => own.includes("|") && DIVIDER.test(own);

function code(text, lines, i, [, fence, language]) {
  let end = i + 1;
  const closes = (own) => own.trim().length >= fence.length && own.trim() === fence[0].repeat(own.trim().length);
  while (end < lines.length && !closes(content(text, lines[end]))) end += 1;
  const closed = end < lines.length;
  const inner = lines.slice(i + 1, end).flatMap((line) => [before(line), leaf(line.at, line.end)]);
  const children = [mark(lines[i].from, lines[i].end), branch("code", inner)];
  if (closed) children.push(mark(lines[end].from, lines[end].end));
  return [branch("pre", children, { language: language.trim().split(/\s/)[0] }), closed ? end + 1 : end];
}

/** Lines that begin an item of the same kind, and those that are indented as far as an item's text, or empty. */
function list(text, lines, first, depth) {
  const kind = (marker) => (/\d/.test(marker) ? "1" : marker);
  const [, , opening] = ITEM.exec(content(text, lines[first]));
  const items = [];
  let i = first;
  let width = 0;
  for (; i < lines.length; i += 1) {
    const line = lines[i];
    const own = content(text, line);
    const item = ITEM.exec(own);
    const indent = /^[ \t]*/.exec(own)[0].length;
    if (!own.trim() && items.length) {
      items.at(-1).push({ ...line, at: line.to });
    } else if (items.length && indent >= width) {
      items.at(-1).push({ ...line, at: line.at + width });
    } else if (item && kind(item[2]) === kind(opening) && !RULE.test(own)) {
      width = item[0].length;
      items.push([{ ...line, at: line.at + width }]);
    } else {
      break;
    }
  }
  const children = items.map((inner) => branch("li", blocks(text, inner, depth + 1)));
  const ordered = kind(opening) === "1";
  return [branch(ordered ? "ol" : "ul", children, ordered ? { start: parseInt(opening, 10) } : {}), i];
}

function table(text, lines) {
  const [head, divider, ...body] = lines;
  return branch("table", [
    branch("thead", [row(text, head, "th")]),
    branch("tbody", [
      branch("tr", [branch("td", [mark(divider.from, divider.end)])], { className: "mark" }),
      ...body.map((line) => row(text, line, "td")),
    ]),
  ]);
}

/** Cells are divided by "|", of which one may stand at either end. */
function row(text, line, tag) {
  const bars = [];
  for (let at = line.at; at < line.to; at += 1) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === "|") bars.push(at);
  }
  const blank = (from, to) => !text.slice(from, to).trim();
  const starts = bars.length && blank(line.at, bars[0]) ? bars : [line.at - 1, ...bars];
  const cells = starts.map((bar, i) => [bar + 1, starts[i + 1] ?? line.to]);
  if (cells.length > 1 && blank(...cells.at(-1))) cells.pop();
  const children = cells.map(([from, to], i) => {
    const whole = text.slice(from, to);
    const [start, end] = [from + whole.length - whole.trimStart().length, from + whole.trimEnd().length];
    const inner = [mark(i ? cells[i - 1][1] : line.from, start), ...inline(text, start, Math.max(start, end))];
    const last = i === cells.length - 1;
    return branch(tag, [...inner, mark(Math.max(start, end), last ? line.end : to)]);
  });
  return branch("tr", children);
}

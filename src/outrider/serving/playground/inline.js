/** Markdown within a line: code, bold, italic, struck, links. Every character ends up in a leaf, in order. */

export const leaf = (from, to) => ({ from, to });
/** A leaf of what only marks the form. */
export const mark = (from, to) => ({ from, to, mark: true });

const LONGEST = 4000; // characters of a line in which forms are looked for: matching is not linear

const FORMS = [
  [/\\(?=[!-/:-@[-`{-~])/y, ([whole], at) => [mark(at, at + 1), leaf(at + 1, at + whole.length + 1)]],
  [/(`+)(?!`)(.*?[^`])\1(?!`)/y, ([, ticks, inner], at) => around(at, ticks.length, inner.length, "code")],
  [/(\*\*)(?=\S)(.*?\S)\1(?!\*)/y, nested("strong")],
  [/(\*)(?=[^\s*])(.*?[^\s*])\1(?!\*)/y, nested("em")],
  [/(?<!\w)(_)(?=[^\s_])(.*?[^\s_])\1(?!\w)/y, nested("em")],
  [/(~~)(?=\S)(.*?\S)\1/y, nested("del")],
  [/(!?\[)([^\]]*)(\]\(<?([^\s()<>]+(?:\([^\s()<>]*\)[^\s()<>]*)*)>?(?:\s+"[^"]*")?\))/y, link],
  [/https?:\/\/[^\s<>"')\]]*[^\s<>"')\].,;:!?*_`]/y, ([url], at) => [anchor(url, [leaf(at, at + url.length)])]],
];
const SPECIAL = /[\\`*_~![]|https?:/g;

/** The nodes of text[from:to], which is in one line. */
export function inline(text, from, to) {
  if (to - from > LONGEST) return [leaf(from, to)];
  const line = text.slice(from, to);
  const nodes = [];
  let at = 0;
  let plain = 0;
  while (at < line.length) {
    SPECIAL.lastIndex = at;
    const special = SPECIAL.exec(line);
    if (!special) break;
    at = special.index;
    const [match, build] = first(line, at);
    if (!match) {
      at += 1;
      continue;
    }
    if (at > plain) nodes.push(leaf(from + plain, from + at));
    const built = build(match, from + at, text);
    nodes.push(...built);
    at = plain = end(built.at(-1)) - from;
  }
  if (plain < line.length) nodes.push(leaf(from + plain, to));
  return nodes;
}

function first(line, at) {
  for (const [form, build] of FORMS) {
    form.lastIndex = at;
    const match = form.exec(line);
    if (match) return [match, build];
  }
  return [null, null];
}

const end = (node) => node.to ?? end(node.children.at(-1));

function around(at, marks, length, tag) {
  const [inner, close] = [at + marks, at + marks + length];
  return [{ tag, children: [mark(at, inner), leaf(inner, close), mark(close, close + marks)] }];
}

function nested(tag) {
  return ([, marks, inner], at, text) => {
    const [start, close] = [at + marks.length, at + marks.length + inner.length];
    const children = [mark(at, start), ...inline(text, start, close), mark(close, close + marks.length)];
    return [{ tag, children }];
  };
}

/** Images are links too: nothing is loaded from elsewhere. */
function link([, open, words, close, url], at, text) {
  const start = at + open.length;
  const stop = start + words.length;
  return [anchor(url, [mark(at, start), ...inline(text, start, stop), mark(stop, stop + close.length)])];
}

/** Only to the web, or to write a mail: anything else stays text. */
function anchor(url, children) {
  return /^(https?:\/\/|mailto:)/i.test(url) ? { tag: "a", url, children } : { tag: "span", children };
}

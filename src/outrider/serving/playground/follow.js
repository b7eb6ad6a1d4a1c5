const LAST_LINE = 40; // px, and some room above it

/**
 * Scrolls along with an answer as it grows, unless the reader has scrolled away: to the end of what it stands in, with
 * the form below, but never past the answer's last line. box: of its text.
 */
export function followed(box) {
  const main = box.closest("main");
  const header = document.querySelector("header"); // covers the top of the page
  let reached = scrollY;
  let follow = true;

  const target = () => {
    const end = main.getBoundingClientRect().bottom - innerHeight;
    const last = box.getBoundingClientRect().bottom - LAST_LINE - header.getBoundingClientRect().bottom;
    return Math.max(0, Math.floor(scrollY + Math.min(end, last)));
  };
  const go = () => {
    if (!follow) return;
    reached = target();
    scrollTo(0, reached);
  };
  const onScroll = () => (follow = scrollY > reached - 80);
  const observer = new ResizeObserver(go);
  go();
  addEventListener("scroll", onScroll, { passive: true });
  observer.observe(document.body);
  return {
    /** Follow no more. The answer is complete, and what was told of it has moved the rest of the page. */
    end() {
      go();
      observer.disconnect();
      removeEventListener("scroll", onScroll);
    },
  };
}

/** Scrolls along with what is added, unless the reader has scrolled away from the end. */
export function followed() {
  const root = document.documentElement;
  const atEnd = () => root.scrollHeight - root.clientHeight - root.scrollTop < 80;
  let follow = true;
  const onScroll = () => (follow = atEnd());
  const observer = new ResizeObserver(() => follow && scrollTo(0, root.scrollHeight));
  addEventListener("scroll", onScroll, { passive: true });
  observer.observe(document.body);
  return {
    end() {
      observer.disconnect();
      removeEventListener("scroll", onScroll);
    },
  };
}


// Creates elements without HTML strings, so that user input is only ever inserted as text.

/**
 * Creates an element. `on…` members are listeners, `dataset` sets data attributes, `true` and `false` toggle an
 * attribute, and all other members are attributes.
 * @param {string} name
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Node|string|null|false|undefined)} children
 */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "dataset") Object.assign(element.dataset, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== false && child !== undefined));
  return element;
}

/** Sets the text of `element` if it differs, so that unchanged text is not announced again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Makes `children` the children of `parent`, in order, with as few moves as possible so that the focus is kept. */
export function arrange(parent, children) {
  const keep = new Set(children);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  children.forEach((child, index) => {
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
}

/** Sets up a tab list (WAI-ARIA) with arrow key navigation. Returns a function that selects a tab by name. */
export function tabs(tablist, onSelect) {
  const all = [...tablist.querySelectorAll('[role="tab"]')];
  const select = (tab, focus) => {
    for (const other of all) {
      const on = other === tab;
      other.setAttribute("aria-selected", String(on));
      other.tabIndex = on ? 0 : -1;
      const panel = document.getElementById(other.getAttribute("aria-controls"));
      if (panel) panel.classList.toggle("shown", on);
    }
    if (focus) tab.focus();
    onSelect?.(tab);
  };
  tablist.addEventListener("click", (event) => {
    const tab = event.target.closest('[role="tab"]');
    if (tab) select(tab, false);
  });
  tablist.addEventListener("keydown", (event) => {
    const at = all.indexOf(event.target);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (at < 0 || next === undefined) return;
    event.preventDefault();
    select(all[(next + all.length) % all.length], true);
  });
  return (name) => select(all.find((tab) => tab.dataset.tab === name) ?? all[0], false);
}

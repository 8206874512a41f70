// What cannot be read on the page, in outputs and in prose: words broken within, and things wider than their cell.
// Called with the cell's element; returns sentences. Editors are left out: code scrolls sideways by nature.
(cell) => {
  const faults = [];
  const parts = [...cell.querySelectorAll(".jp-OutputArea-output, .jp-MarkdownOutput")].filter((part) => part.offsetParent);
  for (const part of parts) {
    const walker = document.createTreeWalker(part, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const parent = node.parentElement;
      if (!parent.offsetParent || parent.closest("mjx-container, script, style, option")) continue;
      // A path alone on its line may be of any length. Elsewhere a line may end after a hyphen, a slash, a bracket or the like,
      // but not within letters, digits and what belongs to a number, its sign included.
      const text = node.data.replace(/^[^\S\n]*\S*\/\S*[^\S\n]*$/gm, (path) => " ".repeat(path.length));
      for (const found of text.matchAll(/(?<![\p{L}\p{N}])[-+]?[\p{L}\p{N}_.,'\u2019%]+|[\p{L}\p{N}_.,'\u2019%]+/gu)) {
        if (found[0].length < 2) continue;
        const range = document.createRange();
        range.setStart(node, found.index);
        range.setEnd(node, found.index + found[0].length);
        const lines = [...range.getClientRects()].filter((box) => box.width > 0.5);
        const broken = lines.some((box) => box.top >= lines[0].bottom - 1 || box.bottom <= lines[0].top + 1);
        if (broken) {
          const around = node.data.slice(Math.max(0, found.index - 20), found.index + found[0].length + 20);
          faults.push(`"${found[0]}" is broken within the word, in "...${around.replace(/\s+/g, " ")}..."`);
        }
      }
    }
    const right = cell.getBoundingClientRect().right + 1;
    const reported = new Set();
    for (const element of [part, ...part.querySelectorAll("*")]) {
      const box = element.getBoundingClientRect();
      if (!box.width || element.closest("mjx-assistive-mml, svg")) continue;
      if (reported.has(element.parentElement)) {
        reported.add(element); // what is inside of something too wide is too wide as well
        continue;
      }
      const name = `${element.tagName.toLowerCase()} ${element.className}`.trim();
      const before = faults.length;
      if (box.right > right) faults.push(`<${name}> ends ${Math.round(box.right - right)} px right of its cell`);
      const cut = element.scrollWidth - element.clientWidth;
      if (element.clientWidth && cut > 1 && getComputedStyle(element).overflowX !== "visible")
        faults.push(`<${name}> hides ${cut} px of its width: "${element.textContent.trim().slice(0, 60)}"`);
      if (faults.length > before) reported.add(element);
    }
  }
  return faults;
}

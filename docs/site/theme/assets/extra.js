// Code that is wider than its place can be scrolled by keyboard, and the buttons of each block have a name of their own.
document$.subscribe(() => {
  document.querySelectorAll(".md-typeset pre").forEach((block, index) => {
    const code = block.querySelector("code");
    if (code) code.tabIndex = 0;
    const buttons = block.querySelector("nav");
    if (buttons) buttons.setAttribute("aria-label", `Code ${index + 1}`);
  });
});

// What can be scrolled sideways can be scrolled by keyboard; the buttons of each block and the search have a name.
function name_and_focus() {
  document.querySelectorAll(".md-typeset pre").forEach((block, index) => {
    block.querySelector("code")?.setAttribute("tabindex", "0");
    block.querySelector("nav")?.setAttribute("aria-label", `Code ${index + 1}`);
  });
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((wrap) => wrap.setAttribute("tabindex", "0"));
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
}
document$.subscribe(() => setTimeout(name_and_focus));  // after the theme has put tables into their wraps

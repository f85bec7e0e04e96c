"use strict";
/* Light or dark, as the system has it or as it was chosen here before. */
const root = document.documentElement;
const chosen = sessionStorage.getItem("theme");
root.dataset.theme = chosen || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
document.addEventListener("DOMContentLoaded", () => {
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    sessionStorage.setItem("theme", root.dataset.theme);
  });
});

// The theme that was chosen last, before anything is drawn. Without a choice, the system's theme holds.
try {
  document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "";
} catch {
  document.documentElement.dataset.theme = ""; // storage may be forbidden
}

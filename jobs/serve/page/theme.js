// The theme that was chosen last, before anything is drawn; else the system's. Storage may be forbidden.
document.documentElement.dataset.theme = localStorage.theme ?? "";

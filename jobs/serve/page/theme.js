// The theme that was chosen last, before anything is drawn; else the system's. Where storage is forbidden, this fails, and so it is the system's.
document.documentElement.dataset.theme = localStorage.theme ?? "";

"""The commands of Earshot, one short module each."""

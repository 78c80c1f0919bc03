"""Marks: what people say of sounds, right, wrong or unsure. They outlive every run, rebuild and restore."""

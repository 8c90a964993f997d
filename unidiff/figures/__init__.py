"""The figures of the source texts: what each must show, the script that draws it, and what was found."""

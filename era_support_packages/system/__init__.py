"""What all other rooms use: the machine, files, interrupts, progress, names.

Nothing is imported here: `bootstrap` uses this room before the requirements are installed.
"""

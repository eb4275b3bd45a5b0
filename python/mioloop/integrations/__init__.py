"""How other programs take mioloop: one module for each that needs more than a line.

Rules: a module here imports its program and is imported by nothing else in the package.
"""

"""The fire drill: real faults, real servers, the shipped rules and routes.

``make drill`` runs it; docs/drill.md tells how to read what it prints.
"""

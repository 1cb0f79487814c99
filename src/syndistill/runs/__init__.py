"""From a name or a file to a finished folder: choosing, the gate, progress, the demo."""

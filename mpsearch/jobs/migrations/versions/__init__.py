"""One file per change; `down_revision` names the one before it."""

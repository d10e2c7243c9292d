"""One function per thing a user asks for; import each from its own module."""

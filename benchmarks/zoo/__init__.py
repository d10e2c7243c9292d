"""Real models and data that lie beside the project, and the referee that scores plans on them."""

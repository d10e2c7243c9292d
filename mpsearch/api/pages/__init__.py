"""Pages for people: a browser sees jobs, fronts and plans. `routers.py` lists what is served."""

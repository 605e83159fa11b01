"""`tbtt explore`: a static page that computes trained models in the browser, and what serves it.

Where to look: `web/` is the page (JavaScript, without a build step): `engine/` computes models and
trains them, `views/` draws, `ui/` has cells, tips and saved figures, `main.js` ties an address to
what is on screen. `catalogue` names the runs that are open; `run_tables` and `probe_tables` make
the tables that the page reads; `server` serves them on loopback; `export` writes the page as one
file or as a folder, for which `bundle` joins its modules; `notebook` is `tbtt.show`. `probes/` has
the probes of the models that ship.
"""

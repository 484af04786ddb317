"""The demo in a browser: what was clicked, what is answered, how that is drawn, and the page."""

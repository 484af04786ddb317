"""The page: gradio's part of the demo, and the server that answers this machine alone."""

from __future__ import annotations

import os
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at import: gradio else asks its makers for the newest version

import gradio as gr
import huggingface_hub.constants
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ruac.backbone.prompts import BACKGROUND, OBJECT
from ruac.base.errors import RuacError
from ruac.demo.answer import MODELS, Models
from ruac.demo.draw import draw, place_of
from ruac.demo.gallery import PICTURES, picture
from ruac.demo.session import Session
from ruac.demo.words import ABOUT, START, summary
from ruac.inference.picture import picture_of

# Gradio's client, and whatever else writes a header of that library, asks huggingface.co for a list of agents. Here and
# not in the environment, which is read when the library is imported: by us, before this page.
huggingface_hub.constants.HF_HUB_OFFLINE = True

HOST = "127.0.0.1"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; frame-src 'none'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""A browser asks no other machine for anything, whatever gradio's page names."""
KINDS = {"object": OBJECT, "background": BACKGROUND}
CSS = """footer {display: none !important} .picture img {cursor: crosshair; touch-action: manipulation}
@media (max-width: 640px) {#settings, #settings .form {display: block}}"""  # side by side, a phone cuts words off


class LocalOnly:
    """Adds `POLICY` to every answer of the server."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
                message = {**message, "headers": [*headers, (b"referrer-policy", b"no-referrer")]}
            await send(message)

        await self._app(scope, receive, answer)


def build_page(models: Models) -> gr.Blocks:
    """The page, whose every event is: change the session, ask, draw."""

    def change(made: Any, session: Session, bounds: bool, model: str, look: bool, alpha: float, risk: float) -> Any:
        """made: what makes the new session of the old one; what a user can mend is said on the page."""
        try:
            session = made(session.set_to(model=model, look=look, alpha=alpha, risk=risk))
            shown = models.ask(session)
        except RuacError as error:
            raise gr.Error(str(error), duration=8, print_exception=False) from error
        left, right = (None, None) if session.picture is None else draw(session, shown, bounds=bounds)
        return session, left, right, summary(session, shown)

    def follow(session: Session, kind: str) -> Session:
        shown = models.ask(session)
        if shown is None or shown.suggestion is None:
            return session
        return session.clicked(*shown.suggestion.point, KINDS[kind])

    def tapped(kind: str, event: gr.SelectData, *given: Any) -> Any:
        return change(lambda s: s.clicked(*place_of(s.picture, *event.index), KINDS[kind]), *given)

    def chosen(event: gr.SelectData, *given: Any) -> Any:
        return change(lambda s: s.showing(picture(list(PICTURES)[event.index])), *given)

    def placed(kind: str, x: float, y: float, *given: Any) -> Any:
        return change(lambda s: s.clicked(x, y, KINDS[kind]), *given)

    def uploaded(path: str, *given: Any) -> Any:
        return change(lambda s: s.showing(picture_of(path)), *given)

    start = Session()
    with gr.Blocks(title="ruac", analytics_enabled=False, fill_width=True) as page:
        session = gr.State(start)
        gr.Markdown("# ruac\nSegment Anything 2 that says, per pixel, where its mask is wrong.")
        with gr.Row():
            left = gr.Image(label="Mask", interactive=False, buttons=[], elem_classes="picture", elem_id="mask")
            right = gr.Image(label="Doubt", interactive=False, buttons=[], elem_id="doubt")
        with gr.Row():
            kind = gr.Radio(list(KINDS), value="object", label="A click says", elem_id="kind")
            undo, clear = gr.Button("Undo", elem_id="undo"), gr.Button("Clear", elem_id="clear")
            there = gr.Button("Click where suggested", elem_id="follow")
        words = gr.Markdown(START, elem_id="words")
        with gr.Row(elem_id="settings"):
            model = gr.Dropdown(list(MODELS), value=start.settings.model, label="Model", elem_id="model")
            look = gr.Checkbox(start.settings.look, label="A second look (zoom)", elem_id="look")
            bounds = gr.Checkbox(True, label="Outlines of inner and outer mask", elem_id="bounds")
            alpha = gr.Slider(0.05, 0.5, start.settings.alpha, step=0.05, label="alpha: may be wrong", elem_id="alpha")
            risk = gr.Slider(0.05, 0.6, start.settings.risk, step=0.05, label="risk: accepted masks", elem_id="risk")
        with gr.Accordion("Without a mouse: a click by its place", open=False):
            x, y = (gr.Number(0, label=f"{name}, pixels of the picture", precision=1) for name in "xy")
            add = gr.Button("Add click")
        titles = list(PICTURES)
        gallery = gr.Gallery(
            [(picture(title), title) for title in titles],
            label="Pictures (drawn, not downloaded)",
            columns=len(titles),
            height=200,
            allow_preview=False,
            buttons=[],
            interactive=False,
            elem_id="gallery",
        )
        upload = gr.UploadButton("A picture of your own", file_types=["image"])
        gr.Markdown(ABOUT)

        settings = [bounds, model, look, alpha, risk]
        given, out = [session, *settings], [session, left, right, words]
        # One after another, so that each sees the session that the one before has left.
        turn = dict(outputs=out, concurrency_id="turn", concurrency_limit=1)
        left.select(tapped, [kind, *given], api_name="click", trigger_mode="multiple", **turn)
        add.click(placed, [kind, x, y, *given], api_name="place", **turn)
        there.click(lambda kind, *g: change(lambda s: follow(s, kind), *g), [kind, *given], api_name="follow", **turn)
        undo.click(lambda *g: change(Session.undone, *g), given, api_name="undo", trigger_mode="multiple", **turn)
        clear.click(lambda *g: change(Session.cleared, *g), given, api_name="clear", **turn)
        gallery.select(chosen, given, api_name="choose", **turn)
        upload.upload(
            lambda path, *g: change(lambda s: s.showing(picture_of(path)), *g),
            [upload, *given],
            api_name="upload",
            **turn,
        )
        for control in settings:  # of a slider that moves, the last value counts
            event = dict(trigger_mode="always_last", api_name=control.elem_id)
            control.input(lambda *g: change(lambda s: s, *g), given, **event, **turn)
    return page


def serve(*, port: int | None = None, device: str | None = None, block: bool = True, browser: bool = False) -> Any:
    """Serve the page at 127.0.0.1; returns gradio's ``(app, address, None)``, at once where not `block`.

    port: None takes the first free one from 7860 on.
    """
    models = Models(device)
    models.predictor(next(iter(MODELS)))  # a missing file is said now, and the first click does not wait
    page = build_page(models)
    fonts = dict(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    served = page.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        inbrowser=browser,
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        footer_links=[],
        theme=gr.themes.Base(**fonts),
        css=CSS,
        app_kwargs={"middleware": [Middleware(LocalOnly)]},
    )
    if block:
        print(f"ruac demo: {served[1]} (this machine only; Ctrl-C ends it)", flush=True)
        page.block_thread()
    return served

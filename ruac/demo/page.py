"""The page: gradio's part of the demo, and the server that answers this machine alone."""

from __future__ import annotations

import os
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at import: gradio else asks its makers for the newest version
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr
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

HOST = "127.0.0.1"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; frame-src 'none'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""A browser asks no other machine for anything, whatever gradio's page names."""
KINDS = {"object": OBJECT, "background": BACKGROUND}
CSS = "footer {display: none !important} .picture img {cursor: crosshair; touch-action: manipulation}"


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

    def show(session: Session, bounds: bool) -> tuple[Any, ...]:
        shown = models.ask(session)
        left, right = (None, None) if session.picture is None else draw(session, shown, bounds=bounds)
        return session, left, right, summary(session, shown)

    def change(session: Session, bounds: bool, made: Any) -> tuple[Any, ...]:
        """made: what makes the new session of the old one; what a user can mend is said on the page."""
        try:
            return show(made(session), bounds)
        except RuacError as error:
            raise gr.Error(str(error), duration=8, print_exception=False) from error

    def tapped(session: Session, bounds: bool, kind: str, event: gr.SelectData) -> tuple[Any, ...]:
        return change(session, bounds, lambda s: s.clicked(*place_of(s.picture, *event.index), KINDS[kind]))

    def typed(session: Session, bounds: bool, kind: str, x: float, y: float) -> tuple[Any, ...]:
        return change(session, bounds, lambda s: s.clicked(x, y, KINDS[kind]))

    def suggested(session: Session, bounds: bool, kind: str) -> tuple[Any, ...]:
        shown = models.ask(session)
        if shown is None or shown.suggestion is None:
            return change(session, bounds, lambda s: s)
        return change(session, bounds, lambda s: s.clicked(*shown.suggestion.point, KINDS[kind]))

    def chosen(session: Session, bounds: bool, event: gr.SelectData) -> tuple[Any, ...]:
        return change(session, bounds, lambda s: s.showing(picture(list(PICTURES)[event.index])))

    def uploaded(session: Session, bounds: bool, path: str) -> tuple[Any, ...]:
        return change(session, bounds, lambda s: s.showing(picture_of(path)))

    def settled(session: Session, bounds: bool, model: str, look: bool, alpha: float, risk: float) -> tuple[Any, ...]:
        return change(session, bounds, lambda s: s.set_to(model=model, look=look, alpha=alpha, risk=risk))

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
            follow = gr.Button("Click where suggested", elem_id="follow")
        words = gr.Markdown(START, elem_id="words")
        with gr.Row():
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

        out, given = [session, left, right, words], [session, bounds]
        left.select(tapped, [*given, kind], out, api_name="click")
        add.click(typed, [*given, kind, x, y], out, api_name="place")
        follow.click(suggested, [*given, kind], out, api_name="follow")
        undo.click(lambda s, b: change(s, b, Session.undone), given, out, api_name="undo")
        clear.click(lambda s, b: change(s, b, Session.cleared), given, out, api_name="clear")
        gallery.select(chosen, given, out, api_name="choose")
        upload.upload(uploaded, [*given, upload], out, api_name="upload")
        settings = [model, look, alpha, risk]
        for control in (*settings, bounds):  # of a slider that moves, the last value counts
            control.input(settled, [*given, *settings], out, trigger_mode="always_last", api_name=control.elem_id)
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

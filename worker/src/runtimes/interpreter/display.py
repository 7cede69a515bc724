

# --- What a program shows -------------------------------------------------------------------------------------------

SHOWN_TEXT_CHARS_MAX = 100_000
PICTURES = (("image/png", "_repr_png_"), ("image/jpeg", "_repr_jpeg_"), ("image/svg+xml", "_repr_svg_"))


class Showing:
    """Where the program that runs at present shows things: a pipe to the worker, one frame each."""

    now = None

    def __init__(self, descriptor):
        self.descriptor = descriptor
        Showing.now = self

    def publish(self, mime, data):
        header = json.dumps({"mime": mime}).encode()
        frame = memoryview(struct.pack(">II", len(header), len(data)) + header + data)
        try:
            while frame:
                frame = frame[os.write(self.descriptor, frame) :]
        except OSError:
            # The worker takes no more, or the program closed the descriptor.
            pass

    def finish(self):
        """Shows the figures that are still open."""
        if "matplotlib.pyplot" in sys.modules:
            attempt(show_figures, show_figures)


def offer_display():
    """Lets code show things with `display(thing)`, and our own reports with `codegen_display.publish`."""
    module = types.ModuleType("codegen_display", "What a program shows beside its output.")
    module.display = builtins.display = display
    module.publish = publish
    sys.modules[module.__name__] = module
    sys.meta_path.insert(0, FiguresFinder())


def display(*things):
    """Shows each thing as a picture if it has one, else as text."""
    for thing in things:
        show(thing)


def publish(mime, data):
    """Shows bytes of a media type."""
    if not isinstance(mime, str):
        raise TypeError("the media type must be a string")
    if Showing.now is not None:
        Showing.now.publish(mime, bytes(data))


def show_value(value):
    """Shows the value of a last expression."""
    if value is not None:
        show(value)


def show(thing):
    picture = picture_of(thing)
    if picture is not None:
        publish(*picture)
    elif not is_part_of_figure(thing):
        publish("text/plain", text_of(thing).encode("utf-8", "backslashreplace"))


def picture_of(thing):
    """A media type and bytes, when the thing has a picture of itself."""
    if isinstance(thing, type):
        return None
    figure = sys.modules.get("matplotlib.figure")
    if figure is not None and isinstance(thing, figure.Figure):
        return "image/png", drawn(thing)
    for mime, name in PICTURES:
        method = getattr(thing, name, None)
        data = bytes_of(method()) if callable(method) else None
        if data:
            return mime, data
    bundle = getattr(thing, "_repr_mimebundle_", None)
    bundle = bundle() if callable(bundle) else None
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    if isinstance(bundle, dict):
        for mime, _ in PICTURES:
            data = bytes_of(bundle.get(mime))
            if data:
                return mime, data
    return None


def bytes_of(data):
    """What such a method gives: bytes, base64 or markup, perhaps with metadata."""
    if isinstance(data, tuple) and data:
        data = data[0]
    if isinstance(data, str):
        if data.lstrip().startswith("<"):
            return data.encode()
        try:
            return base64.b64decode(data, validate=True)
        except ValueError:
            return None
    return bytes(data) if isinstance(data, (bytes, bytearray, memoryview)) else None


def is_part_of_figure(thing):
    """Whether its text says less than the figure that is shown anyway."""
    if isinstance(thing, (list, tuple)) and thing:
        thing = thing[0]
    return "matplotlib.pyplot" in sys.modules and type(thing).__module__.startswith("matplotlib.")


def text_of(thing):
    text = repr(thing)
    if isinstance(thing, (dict, list, tuple, set, frozenset)) and 100 < len(text) < 20_000:
        text = pprint.pformat(thing, width=100, compact=True)
    if len(text) > SHOWN_TEXT_CHARS_MAX:
        text = f"{text[:SHOWN_TEXT_CHARS_MAX]}\n[… {len(text) - SHOWN_TEXT_CHARS_MAX} characters left out]"
    return text


def drawn(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def show_figures(*_, **__):
    """Shows the open figures and closes them, as notebooks do."""
    pyplot = sys.modules["matplotlib.pyplot"]
    for number in pyplot.get_fignums():
        publish("image/png", drawn(pyplot.figure(number)))
        pyplot.close(number)


class FiguresFinder:
    """Gives `matplotlib.pyplot` a `show` that shows figures, when it is imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "matplotlib.pyplot":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                module.show = show_figures

            spec.loader.exec_module = exec_module
        return spec

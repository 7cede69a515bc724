

# --- What a program shows -------------------------------------------------------------------------------------------

SHOWN_TEXT_CHARS_MAX = 100_000
# For pandas; by itself it takes 80 characters, and hides the columns that do not fit.
TABLES = {"display.width": 200, "display.max_columns": 50}
PICTURES = (("image/png", "_repr_png_"), ("image/jpeg", "_repr_jpeg_"), ("image/svg+xml", "_repr_svg_"))


class Showing:
    """Where the program that runs at present shows things: a pipe to the worker, one frame each."""

    now = None

    def __init__(self, descriptor):
        self.descriptor = descriptor
        # Threads take turns; a handler that shows something in the midst of it goes first, rather than waits for ever.
        self.turn = threading.RLock()
        # Figures that were shown already. They are compared by what they are, since code may say what is equal.
        self.figures = []
        Showing.now = self

    def publish(self, mime, data):
        header = json.dumps({"mime": mime}).encode()
        with self.turn:
            if self.descriptor is not None:
                write_whole(self.descriptor, struct.pack(">II", len(header), len(data)), header, data)

    def finish(self):
        """Shows the figures that are still open."""
        if "matplotlib.pyplot" in sys.modules:
            attempt(show_figures, show_figures)

    def close(self):
        """Shows nothing more, once what is being shown is written."""
        Showing.now = None
        self.figures.clear()
        with self.turn:
            descriptor, self.descriptor = self.descriptor, None
            quietly(os.close, descriptor)


def write_whole(descriptor, *parts):
    """Writes a frame to its end whatever is raised meanwhile, since a part of one would spoil those after it."""
    raised = None
    try:
        raw = io.FileIO(descriptor, "wb", closefd=False)
    except OSError:
        # The program closed the descriptor.
        return
    # It has room for all, and so keeps an exact account of what was written when a signal's handler raises something.
    stream = io.BufferedWriter(raw, 1 + sum(map(len, parts)))
    for part in parts:
        stream.write(part)
    while True:
        try:
            stream.flush()
            break
        except BaseException as error:
            if isinstance(error, OSError) and error.errno is not None:
                # The worker takes no more. What is left must not be tried again when the stream goes.
                raw.close()
                break
            raised = error
    if raised is not None:
        try:
            raise raised
        finally:
            raised = None


def renew_turn():
    """A thread that had its turn is not there in a forked process."""
    if Showing.now is not None:
        Showing.now.turn = threading.RLock()


def offer_display():
    """Lets code show things with `display(thing)`, and our own reports with `codegen_display.publish`."""
    module = types.ModuleType(NEWEST, "What a program shows beside its output.")
    module.display = builtins.display = display
    module.publish = publish
    sys.modules[NEWEST] = module
    os.register_at_fork(after_in_child=renew_turn)


def display(*things):
    """Shows each thing as a picture if it has one, else as text."""
    for thing in things:
        show(thing)


def publish(mime, data):
    """Shows bytes of a media type."""
    if not isinstance(mime, str):
        raise TypeError("the media type must be a string")
    showing = Showing.now
    if showing is not None:
        showing.publish(mime, bytes(data))


def show_value(value):
    """Shows the value of a last expression."""
    if value is not None:
        show(value)


def show(thing):
    picture = picture_of(thing)
    if picture is not None:
        publish(*picture)
        remember_figure(thing)
    elif not is_part_of_figure(thing):
        publish("text/plain", text_of(thing).encode("utf-8", "backslashreplace"))


def picture_of(thing):
    """A media type and bytes, when the thing has a picture of itself."""
    # Whether something is of a kind is asked of its type, since things may lie about their class, or fail to name it.
    kind = type(thing)
    if issubclass(kind, type):
        return None
    if is_figure(thing):
        data = unless_it_fails("savefig", drawn, thing)
        return ("image/png", data) if data else None
    if method_of(thing, "_there_is_no_such_representation_") is not None:
        # It has every method that it is asked for.
        return None
    for mime, name in PICTURES:
        data = unless_it_fails(name, represented, thing, name)
        if data:
            return mime, data
    return unless_it_fails("_repr_mimebundle_", picture_in_bundle, thing)


def is_figure(thing):
    figure = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    return figure is not None and issubclass(type(thing), figure)


def remember_figure(thing):
    """A figure that is shown comes once, though it is open still when the program or call ends."""
    showing = Showing.now
    if showing is not None and is_figure(thing):
        showing.figures.append(thing)


def method_of(thing, name):
    try:
        method = getattr(thing, name, None)
        return method if callable(method) else None
    except Exception:
        # Its attributes are made by code that knows nothing of this one.
        return None


def representation(thing, name):
    """What such a method of it gives, if it has one that is more than announced."""
    method = method_of(thing, name)
    try:
        return method() if method is not None else None
    except NotImplementedError:
        return None


def represented(thing, name):
    return bytes_of(representation(thing, name))


def picture_in_bundle(thing):
    bundle = representation(thing, "_repr_mimebundle_")
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    if isinstance(bundle, dict):
        for mime, _ in PICTURES:
            data = bytes_of(bundle.get(mime))
            if data:
                return mime, data
    return None


def unless_it_fails(name, step, *arguments):
    """What a step gives. Code is not wrong because a picture of its value cannot be made: that is told, no more."""
    try:
        return step(*arguments)
    except Exception as error:
        quietly(print, f"Exception ignored in: {name}", file=sys.stderr)
        quietly(show_exception, type(error), error, without_ours(error.__traceback__))
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
    if "matplotlib.pyplot" not in sys.modules:
        return False
    try:
        if issubclass(type(thing), (list, tuple)) and len(thing) > 0:
            thing = thing[0]
        return type(thing).__module__.startswith("matplotlib.")
    except Exception:
        return False


class Printer(pprint.PrettyPrinter):
    """Leaves strings whole; its parent breaks them at every blank as soon as one line is too long."""

    _dispatch = {
        kind: step
        for kind, step in getattr(pprint.PrettyPrinter, "_dispatch", {}).items()
        if kind not in (str.__repr__, bytes.__repr__, bytearray.__repr__)
    }


def text_of(thing):
    text = repr(thing)
    if issubclass(type(thing), (dict, list, tuple, set, frozenset)) and 100 < len(text) < 20_000:
        try:
            # The order of a dict says something.
            text = Printer(width=100, compact=True, sort_dicts=False).pformat(thing)
        except Exception:
            # Its own text will do.
            pass
    if len(text) > SHOWN_TEXT_CHARS_MAX:
        text = f"{text[:SHOWN_TEXT_CHARS_MAX]}\n[… {len(text) - SHOWN_TEXT_CHARS_MAX} characters left out]"
    return text


def drawn(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def show_figures(*_, **__):
    """Shows the open figures that were not shown yet, and closes all of them, as notebooks do. One that cannot be drawn
    is told of and keeps no other back."""
    pyplot = sys.modules["matplotlib.pyplot"]
    for number in pyplot.get_fignums():
        unless_it_fails(f"showing figure {number}", show_figure, pyplot, number)


def show_figure(pyplot, number):
    try:
        figure, showing = pyplot.figure(number), Showing.now
        if showing is not None and not any(figure is shown for shown in showing.figures):
            publish("image/png", drawn(figure))
    finally:
        pyplot.close(number)


def show_figures_for(pyplot):
    pyplot.show = show_figures


def widen_tables(pandas):
    """Gives tables the width that a result has, since there is no terminal to ask. What the code sets, wins."""
    for name, value in TABLES.items():
        try:
            pandas.set_option(name, value)
        except Exception:
            # Another release, or a module of the session's own with that name.
            pass


class Amendments:
    """Amends modules when they are imported."""

    def __init__(self, amendments):
        self.amendments = amendments

    def find_spec(self, name, path=None, target=None):
        # Only once, also so that the others on the path are asked.
        amend = self.amendments.pop(name, None)
        spec = importlib.util.find_spec(name) if amend is not None else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            amend(module)

        spec.loader.exec_module = exec_module
        return spec

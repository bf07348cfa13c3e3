"""The house rules, checked on the source: which room may import which, what is documented and typed, what is too long.

Each rule is a function from a source text to the lines that break it. The first tests apply the rules to the checkout;
the last ones feed every rule a text that breaks it.

Longer than 300 lines because every rule stands beside the texts that show it can fail.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Floors, from the ground up. A room imports itself and lower floors; rooms of one floor do not know each other.
FLOORS = [
    {"errors", "defaults", "one_program"},
    {"atomic", "memory"},
    {"iterate", "likelihood", "penalty", "io", "interpolation"},
    {"models", "metrics", "report", "bowsher"},
    {"running"},
    {"training", "phantoms"},
    {"datasets"},  # which give what phantoms give: Echo, Scenes
    {"pet", "diffusion", "registration", "segmentation", "labels", "uncertainty", "shortcuts", "ivim"},
    {"tools"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}
OUTSIDE = {"experiments", "configs", "tests", "scripts"}
HEAVY_OR_OPTIONAL = {"matplotlib", "orbax", "nilearn", "pydicom", "PIL", "skimage", "sklearn", "petsird"}

# Networks are taken as Models below tools/; only what reads a file of weights makes its network again.
NETWORK_MODULES = {
    "unet", "plain_unet", "score_unet", "registration_unet", "residual", "resnet", "swin", "vgg", "classifier"
}  # fmt: skip
BUILDERS = {
    "unet", "plain_unet", "score_unet", "registration_unet", "residual_cnn", "resnet", "swin", "vgg", "from_flax"
}  # fmt: skip
BY_NAME = {"medjax.models.build", "medjax.models.networks.build", "models.build", "networks.build"}
FILE_LOADERS = {"medjax/diffusion/prior_file.py", "medjax/registration/network_file.py"}

# What draws random numbers, and where a call has its shape.
SHAPE_AT = {"jax.random.normal": 1, "jax.random.uniform": 1, "jax.random.truncated_normal": 3}

# A cache keyed by settings keeps what was compiled alive and hides it from `jit`; these are caches of something else.
CACHES = {
    "medjax/phantoms/cohort.py": "the template of all subjects, which takes seconds to label and to smooth",
    "medjax/phantoms/mni.py": "the one atlas, which takes a second to segment",
    "medjax/training/batches.py": "an epoch's order, an array that is asked for once a batch",
}

# What multiplies matrices, and takes `precision`.
PRODUCTS = {"dot", "matmul", "vdot", "inner", "tensordot", "einsum", "dot_general", "conv", "conv_general_dilated"}

MAX_FILE, MAX_FUNCTION = 300, 60
LONGER = "Longer than 300 lines because "  # starts a sentence of a module's docstring that gives a reason

# Written so that no pattern matches itself.
MACHINE = re.compile(
    r"(^|[^A-Za-z0-9_.])/(root|home|Users|work|opt)/|\bfile:///|://[^ ]*/simple\b|(--|extra-)index-url"
)

Def = ast.FunctionDef | ast.AsyncFunctionDef


def files(*patterns: str) -> list[str]:
    """Tracked and not yet tracked files, without ignored ones; all of them where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        found = (str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.rglob(pattern.split("/")[-1]))
        listed_names = [name for name in found if not name.startswith((".venv", ".cache", "runs"))]
    else:
        listed_names = listed.stdout.split("\0")
    return sorted({name for name in listed_names if name and (ROOT / name).is_file()})


def sources(*folders: str) -> list[str]:
    return [name for name in files("*.py") if name.split("/")[0] in folders]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ── the rules ──


def imports(source: str, name: str) -> Iterator[tuple[int, str, bool]]:
    """(line, dotted module, whether it is imported with the file) of every import; `from a import b` gives a.b."""
    tree = ast.parse(source)
    late = {id(node) for outer in ast.walk(tree) if runs_later(outer) for node in ast.walk(outer)}
    package = name.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(tree):
        early = id(node) not in late
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, early) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}", early) for alias in node.names)


def runs_later(node: ast.AST) -> bool:
    """A function, or what only a type checker reads (`if TYPE_CHECKING:` without an else)."""
    if isinstance(node, ast.If):
        return not node.orelse and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    return isinstance(node, Def)


def room(dotted: str) -> str:
    """medjax.pet.em → pet; medjax → __init__."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__version__" else "__init__"


def wrong_arrows(source: str, name: str) -> list[str]:
    """Imports that go up or sideways between rooms, or leave the room a dependency is kept in."""
    mine = room(name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")) if name[:7] == "medjax/" else None
    if mine is not None and mine not in FLOOR_OF:
        return [f"{name}: medjax/{mine} stands on no floor; give it one in tests/test_house.py"]
    found = []
    for line, module, early in imports(source, name):
        top = module.split(".")[0]
        if mine is not None and top in OUTSIDE:
            found.append(f"{name}:{line}: medjax imports {top}")
        if mine is not None and top == "medjax" and not may_import(mine, other := room(module)):
            found.append(f"{name}:{line}: {mine} imports {other}")
        if top == "flax" and mine != "models":
            found.append(f"{name}:{line}: flax is imported in models/ only")
        if top == "matplotlib" and mine != "report":
            found.append(f"{name}:{line}: matplotlib is imported in report/ only")
        if top == "typer" and mine not in (None, "cli"):
            found.append(f"{name}:{line}: typer is imported in cli/ only; a tool returns a result")
        if name[:12] == "experiments/" and module.startswith("medjax.cli"):
            found.append(f"{name}:{line}: an experiment imports no command; run_module is in medjax.running.experiment")
        if mine is not None and early and top in HEAVY_OR_OPTIONAL:
            found.append(f"{name}:{line}: {top} is imported inside functions only")
    return list(dict.fromkeys(found))


def may_import(mine: str, other: str) -> bool:
    below = other in FLOOR_OF and FLOOR_OF[other] < FLOOR_OF[mine]
    return below or other in (mine, "__init__")


def hidden_files(names: list[str]) -> list[str]:
    """Modules of experiments whose names begin with an underscore: what several share is a package with a name."""
    shared = [name for name in names if name.startswith("experiments/")]
    return [name for name in shared if name.split("/")[-1].startswith("_") and not name.endswith("__init__.py")]


def networks_built(source: str, name: str) -> list[str]:
    """Networks that a room below tools/ builds instead of taking a Model: modules imported, builders called."""
    mine = room(name.removesuffix(".py").replace("/", "."))
    if name[:7] != "medjax/" or mine in ("models", "__init__") or FLOOR_OF.get(mine, 0) >= FLOOR_OF["tools"]:
        return []
    by_name = set() if name in FILE_LOADERS else BY_NAME
    found = [
        f"{name}:{line}: {mine} imports {module}"
        for line, module, _ in imports(source, name)
        if module.startswith("medjax.models.") and (NETWORK_MODULES & set(module.split(".")) or module in by_name)
    ]
    for node in ast.walk(ast.parse(source)):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called.split(".")[-1] in BUILDERS or called in by_name:
            found.append(f"{name}:{node.lineno}: {mine} builds a network, {called}(…); take a Model")
    return found


def draws_of_several_axes(source: str, name: str) -> list[str]:
    """Weights that are not drawn flat, as `(size,)`, and reshaped: XLA compiles such draws slowly for CPUs.

    In models/ every draw is one of weights; elsewhere Flax's own layers and initializers are looked for.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if re.fullmatch(r"(jax\.)?nn\.initializers\.(?!(zeros|ones|constant)$)\w+", text):
            found.append(f"{name}:{node.lineno}: {text}; use models.layers.FanIn")
        if text in ("nn.Conv", "nn.Dense") and name != "medjax/models/layers.py":
            found.append(f"{name}:{node.lineno}: {text} starts with a draw of several axes; use models.layers")
        function = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if name.startswith("medjax/models/") and function in SHAPE_AT:
            shapes = [word.value for word in node.keywords if word.arg == "shape"]
            if not all(map(is_flat, [*shapes, *node.args[SHAPE_AT[function] :][:1]])):
                found.append(f"{name}:{node.lineno}: a draw of several axes; draw (size,) and reshape")
    return found


def is_flat(shape: ast.AST) -> bool:
    """A tuple of one number, written out."""
    return isinstance(shape, ast.Tuple) and len(shape.elts) == 1 and not isinstance(shape.elts[0], ast.Starred)


def caches(source: str, name: str) -> list[str]:
    """Caches of functions, which hold what settings led to."""
    return [
        f"{name}:{node.lineno}: {ast.unparse(decorator)}; pass equal static arguments to jit instead"
        for node in ast.walk(ast.parse(source))
        for decorator in getattr(node, "decorator_list", [])
        if re.match(r"(functools\.)?(lru_)?cache\b", ast.unparse(decorator))
    ]


def unnamed_precision(source: str, name: str) -> list[str]:
    """Matrix products outside networks that an accelerator may make in TF32 or bfloat16.

    `@` takes no precision, so a file of the library that imports jax.numpy says `jnp.matmul(…, precision=…)` or, on the
    host, `np.matmul`; tools and experiments place voxels with it.
    """
    mine = room(name.removesuffix(".py").replace("/", "."))
    if mine == "models":
        return []
    library = name[:7] == "medjax/" and FLOOR_OF.get(mine, 0) < FLOOR_OF["tools"]
    with_jax = library and any(module.startswith("jax.numpy") for _, module, _ in imports(source, name))
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult) and with_jax:
            found.append(f"{name}:{node.lineno}: @ takes no precision; use jnp.matmul or np.matmul")
        if isinstance(node, ast.Call) and re.fullmatch(r"(jnp|jax\.numpy|lax|jax\.lax)\.\w+", ast.unparse(node.func)):
            product = ast.unparse(node.func).split(".")[-1]
            if product in PRODUCTS and "precision" not in {keyword.arg for keyword in node.keywords}:
                found.append(f"{name}:{node.lineno}: {product} without precision=")
    return found


def untold(source: str, name: str) -> list[str]:
    """Modules and public functions and classes without a docstring; public functions and methods not fully typed."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) or not tree.body else [f"{name}: no module docstring"]
    for node in tree.body:
        if not isinstance(node, Def | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node) and not is_overload(node):
            found.append(f"{name}:{node.lineno}: {node.name} has no docstring")
        functions = [node] if isinstance(node, Def) else [part for part in node.body if isinstance(part, Def)]
        for function in functions:
            if not function.name.startswith("_") or function.name in ("__call__", "__init__"):
                found += [f"{name}:{function.lineno}: {function.name}: {what}" for what in unannotated(function)]
    return found


def is_overload(node: ast.AST) -> bool:
    return any(ast.unparse(decorator).endswith("overload") for decorator in getattr(node, "decorator_list", []))


def unannotated(function: Def) -> Iterator[str]:
    """What of a function's signature has no type; self and cls need none, nor what __init__ returns."""
    given = function.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    yield from (
        f"{one.arg} has no type" for one in every if one and not one.annotation and one.arg not in ("self", "cls")
    )
    if function.returns is None and function.name != "__init__":
        yield "no return type"


def too_long(source: str, name: str) -> list[str]:
    """Files and functions longer than one idea takes; a function's docstring does not count."""
    count, tree = source.count("\n"), ast.parse(source)
    reason = " ".join((ast.get_docstring(tree) or "").split())
    excused = LONGER in reason
    found = [f"{name}: {count} lines, at most {MAX_FILE}"] if count > MAX_FILE and not excused else []
    for node in ast.walk(tree):
        if isinstance(node, Def):
            told = len((ast.get_docstring(node) or "").splitlines())
            length = (node.end_lineno or 0) - node.lineno + 1 - told
            if length > MAX_FUNCTION:
                found.append(f"{name}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION}")
    return found


def machine_traces(text: str, name: str) -> list[str]:
    """Absolute paths of somebody's machine, and addresses of package indexes."""
    return [f"{name}:{n}: {line.strip()}" for n, line in enumerate(text.splitlines(), 1) if MACHINE.search(line)]


# ── the checkout keeps them ──


def assert_none(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("rule", [wrong_arrows, too_long, unnamed_precision])
def test_medjax_and_experiments_keep(rule):
    assert_none([line for name in sources("medjax", "experiments") for line in rule(read(name), name)])


def test_scripts_and_tests_are_short_too():
    found = [line for name in sources("scripts", "tests") for line in too_long(read(name), name)]
    assert_none([line for line in found if re.match(r"\S+: ", line)])  # files; functions are the library's rule


def test_what_experiments_share_has_a_name():
    assert_none(hidden_files(sources("experiments")))
    assert hidden_files(["experiments/_pet.py", "experiments/pet/__init__.py", "medjax/_a.py"]) == [
        "experiments/_pet.py"
    ]


def test_no_network_is_built_below_tools():
    assert_none([line for name in sources("medjax") for line in networks_built(read(name), name)])


def test_weights_are_drawn_flat():
    assert_none([line for name in sources("medjax") for line in draws_of_several_axes(read(name), name)])


def test_no_function_is_cached_by_its_settings():
    assert_none([line for name in sources("medjax") if name not in CACHES for line in caches(read(name), name)])
    done = [name for name in CACHES if not caches(read(name), name)]
    assert not done, f"no longer needed in CACHES: {done}"


def test_every_public_name_is_documented_and_typed():
    assert_none([line for name in sources("medjax") for line in untold(read(name), name)])


def test_nothing_of_a_machine_is_in_the_tree():
    texts = {name: (ROOT / name).read_bytes() for name in files("*")}
    readable = {name: text.decode(errors="replace") for name, text in texts.items() if b"\0" not in text[:8000]}
    assert_none([line for name, text in readable.items() for line in machine_traces(text, name)])


def test_locks_hold_names_and_versions_only():
    locks = sorted(ROOT.glob("requirements-*.lock"))
    assert locks
    for lock in locks:
        lines = lock.read_text().splitlines()
        assert_none([f"{lock.name}: {line}" for line in lines if not re.fullmatch(r"[\w.-]+==[\w.!]+", line)])


def test_the_citation_has_this_version():
    version = re.search(r'__version__ = "(.+)"', read("medjax/__init__.py"))
    assert version and f"\nversion: {version[1]}\n" in read("CITATION.cff")


@pytest.mark.parametrize("command", ["import medjax", "import runpy; runpy.run_module('medjax', run_name='__main__')"])
def test_answers_at_once(command):
    """`import medjax` and `medjax --help` load nothing that takes its time."""
    if "runpy" in command and not (ROOT / "medjax/cli/__init__.py").exists():
        pytest.skip("no command line yet")
    heavy = ["jax", "flax", "orbax", "numpy", "scipy", "matplotlib", "nibabel", "nilearn"]
    report = f"import sys, atexit; atexit.register(lambda: print('LOADED', [m for m in {heavy} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{report}; sys.argv = ['medjax', '--help']; {command}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


# ── each rule can fail ──


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("medjax/metrics/image.py", "import medjax.pet.em"),
        ("medjax/metrics/image.py", "from medjax import phantoms"),
        ("medjax/metrics/image.py", "from ..training import loop"),
        ("medjax/metrics/image.py", "def f():\n    from medjax.cli import main"),
        ("medjax/errors.py", "from medjax.running import x"),
        ("medjax/pet/em.py", "from medjax.diffusion.sde import vp"),
        ("medjax/pet/__init__.py", "from ..ivim import fit"),
        ("medjax/pet/em.py", "from medjax import nonsense"),
        ("medjax/utils.py", "import jax"),
        ("medjax/cli/pet.py", "import experiments.demo"),
        ("medjax/cli/pet.py", "def f():\n    from configs import demo"),
        ("medjax/pet/em.py", "def f():\n    import flax.linen as nn"),
        ("experiments/demo.py", "from flax import linen"),
        ("experiments/demo.py", "def f():\n    import matplotlib.pyplot as plt"),
        ("experiments/demo.py", "from medjax.cli import main"),
        ("medjax/tools/ivim_fit.py", "import typer"),
        ("medjax/report/figures.py", "from matplotlib import pyplot"),
        ("medjax/training/checkpoint.py", "import orbax.checkpoint"),
        ("medjax/phantoms/mni.py", "if True:\n    import nilearn"),
    ],
)
def test_wrong_arrows_are_seen(name, source):
    assert len(wrong_arrows(source, name)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (
            "medjax/pet/em.py",
            "import jax\nfrom medjax.errors import DataError\nfrom . import penalty\nfrom .penalty import rdp",
        ),
        ("medjax/pet/__init__.py", "from . import em\nfrom .em import step"),
        ("medjax/diffusion/sampler.py", "from medjax.models import unet\nfrom ..training import loop"),
        ("medjax/models/unet.py", "import flax.linen as nn\nfrom medjax.models.layers import conv"),
        ("medjax/report/figures.py", "def f():\n    import matplotlib.pyplot as plt"),
        ("medjax/report/figures.py", "if TYPE_CHECKING:\n    from matplotlib.axes import Axes"),
        ("medjax/cli/pet.py", "from medjax import __version__\ndef f():\n    from medjax.pet import em"),
        ("medjax/__main__.py", "from medjax.cli import main"),
        ("medjax/__init__.py", '__version__ = "1"'),
        (
            "experiments/demo.py",
            "from medjax.pet import em\nfrom medjax.diffusion import sde\nfrom configs import demo",
        ),
    ],
)
def test_right_arrows_pass(name, source):
    assert wrong_arrows(source, name) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("medjax/labels/a.py", "from medjax.models.unet import group_norm"),
        ("medjax/labels/a.py", "from medjax.models import plain_unet"),
        ("medjax/training/a.py", "def f():\n    import medjax.models.residual as r"),
        ("medjax/pet/a.py", "from ..models.score_unet import ScoreUNet"),
        ("medjax/pet/a.py", "net = somewhere.unet(3)"),
        ("medjax/diffusion/a.py", "def f(module):\n    return from_flax(module)"),
        ("medjax/labels/a.py", "from medjax import models\nnet = models.build('unet', {})"),
        ("medjax/labels/a.py", "from medjax.models import build"),
        ("medjax/diffusion/prior.py", "from ..models.networks import build"),
        ("medjax/diffusion/prior_file.py", "from medjax.models import unet"),
    ],
)
def test_networks_built_below_tools_are_seen(name, source):
    assert len(networks_built(source, name)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("medjax/tools/a.py", "from medjax.models.unet import unet\nnet = unet(3)"),
        ("medjax/cli/a.py", "from medjax.models.unet import unet"),
        ("medjax/models/b.py", "from medjax.models.unet import unet\nnet = from_flax(unet)"),
        ("experiments/a.py", "from medjax.models.unet import unet"),
        ("medjax/diffusion/prior_file.py", "from medjax.models import build\nnet = build('unet', {})"),
        ("medjax/tools/a.py", "from medjax import models\nnet = models.build('unet', {})"),
        ("medjax/labels/a.py", "from medjax.models.model import Network, require"),
    ],
)
def test_networks_taken_pass(name, source):
    assert networks_built(source, name) == []


@pytest.mark.parametrize(
    "source",
    [
        "jax.random.normal(key, (3, size))",
        "jax.random.normal(key, shape)",
        "jax.random.normal(key, (*shape,))",
        "jax.random.uniform(key, shape=(2, 3))",
        "jax.random.truncated_normal(key, -2, 2, x.shape)",
        "nn.initializers.lecun_normal()",
        "jax.nn.initializers.he_normal()",
        "nn.Dense(4)(x)",
    ],
)
def test_draws_of_several_axes_are_seen(source):
    assert len(draws_of_several_axes(source, "medjax/models/unet.py")) == 1
    assert len(draws_of_several_axes(source, "medjax/diffusion/a.py")) == ("random" not in source)


@pytest.mark.parametrize(
    "source",
    [
        "jax.random.normal(key, (size,))",
        "jax.random.normal(key)",
        "nn.initializers.zeros",
        "Dense(4)(x)",
        "jnp.zeros(shape=(2, 3))",
    ],
)
def test_flat_draws_pass(source):
    assert draws_of_several_axes(source, "medjax/models/unet.py") == []


def test_caches_are_seen():
    for decorator in ("lru_cache", "lru_cache(maxsize=8)", "functools.lru_cache(None)", "cache", "functools.cache"):
        assert len(caches(f"@{decorator}\ndef f(x):\n    return x", "a.py")) == 1
    assert caches("@partial(jax.jit, static_argnums=0)\ndef f(x):\n    return x\n\n@cached\nclass A: ...", "a.py") == []


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ("import jax.numpy as jnp\ny = a @ b", 1),
        ("import numpy as np\ny = a @ b", 0),
        ("y = jnp.einsum('ab,b', a, b)", 1),
        ("y = jnp.einsum('ab,b', a, b, precision=high)", 0),
        ("y = jax.lax.conv_general_dilated(a, b, (1,), 'SAME')", 1),
        ("y = np.tensordot(a, b, 1) + jnp.linalg.norm(a)", 0),
        ("y = jax.lax.dot_general(a, b, ((1,), (0,)))", 1),
    ],
)
def test_products_of_unnamed_precision_are_seen(source, number):
    assert len(unnamed_precision(source, "medjax/pet/a.py")) == number
    assert unnamed_precision(source, "medjax/models/a.py") == []


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("def f(x: int) -> int:\n    return x", "no docstring"),
        ("class State:\n    image: int", "no docstring"),
        ('def f(x) -> int:\n    """F."""', "x has no type"),
        ('def f(*x, k: int) -> int:\n    """F."""', "x has no type"),
        ('def f(x: int):\n    """F."""', "no return type"),
        ('class Net:\n    """N."""\n    def __call__(self, x):\n        return x', "x has no type"),
        ('async def f():\n    """F."""', "no return type"),
    ],
)
def test_untold_names_are_seen(body, complaint):
    assert complaint in " ".join(untold(f'"""M."""\n{body}\n', "medjax/a.py"))


def test_told_names_pass():
    public = '"""M."""\ndef f(x: int) -> int:\n    """F."""\n'
    source = f'{public}\nclass A:\n    """A."""\n    def _g(self, x): ...\n\ndef _h(x): ...\n'
    assert untold(source, "medjax/a.py") == []
    assert untold("", "medjax/pet/__init__.py") == []
    assert untold("x = 1", "medjax/a.py") == ["medjax/a.py: no module docstring"]


def test_long_files_and_functions_are_seen():
    body = "    x = 1\n" * (MAX_FUNCTION - 1)
    docstring = '    """One.\n\n' + "    More.\n" * 30 + '    """\n'
    assert too_long(f"def f():\n{body}", "a.py") == []
    assert len(too_long(f"def f():\n{body}    y = 2\n", "a.py")) == 1
    assert len(too_long(f"class A:\n  def f():\n{body}    y = 2\n", "a.py")) == 1
    assert too_long(f"def f():\n{docstring}{body[: -2 * len('    x = 1') - 2]}", "a.py") == []
    assert len(too_long("x = 1\n" * (MAX_FILE + 1), "a.py")) == 1
    assert too_long("x = 1\n" * MAX_FILE, "a.py") == []
    reason = '"""One idea.\n\nLonger than 300 lines\nbecause it lists what there is."""\n'
    assert too_long(reason + "x = 1\n" * MAX_FILE, "a.py") == []


@pytest.mark.parametrize(
    "line", ["cd {0}root/x", "'{0}home/me/a'", "{0}Users/a", "https://host{0}simple/", "file:{0}{0}{0}a"]
)
def test_machine_traces_are_seen(line):
    found = machine_traces(f"a\n{line.format('/')}\npip --{'index'}-url x", "a.txt")
    assert [one.split(":")[1] for one in found] == ["2", "3"]


@pytest.mark.parametrize(
    "text", ["../shared/data", "https://example.org/home/a", "a simple/root/thing", "1/2 and /usr/bin/env"]
)
def test_ordinary_paths_pass(text):
    assert machine_traces(text, "a.txt") == []

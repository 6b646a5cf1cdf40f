"""The options of each command, and their values from a TOML file.

Nothing here imports jax: `funcnet --help` must answer at once.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

__all__ = [
    "Check",
    "Checkpoints",
    "Evaluate",
    "Export",
    "Forecast",
    "Launch",
    "New",
    "Predict",
    "Report",
    "Summary",
    "Train",
    "as_train",
    "settled",
]

Activation = Literal[
    "relu", "leaky_relu", "prelu", "rrelu", "elu", "gelu", "silu", "softplus", "sigmoid", "tanh", "identity"
]
# Options that belong to one call and are not kept with the run, and options that --resume takes from the command line.
NOT_KEPT = (
    "config", "find_rate", "output", "resume", "devices", "sharding", "coordinator", "num_processes", "process_id",
)  # fmt: skip
OF_NETWORK = ("model", "features", "hidden", "activation", "dropout", "image_size")  # what --from takes from a run
MAY_CHANGE = (
    "epochs", "keep_checkpoints", "watchdog", "debug_nans", "devices", "sharding", "resume", "tensorboard",
    "accumulate", "data", "download", "engine", "folder", "learning_rate", "schedule", "weight_decay",
)  # fmt: skip
Positional = tyro.conf.Positional


@dataclass(frozen=True)
class _Network:
    """Options that say what the network is."""

    data: str = "digits"
    """Bundled digits; mnist, fashion_mnist, cifar10 or cifar100 from --folder; a .csv, .tsv or .parquet table;
    a folder of pictures, with a folder for each class or a table of file names; or an .npz or .npy file."""
    target: tuple[str, ...] = ()
    """What to predict: columns of a table, or an array of an .npz file."""
    x: str | None = None
    """The array of rows of an .npz file, if its name is not a usual one."""
    task: Literal["classes", "labels", "regression"] | None = None
    """By default it follows from the target: texts and few numbers are classes, several columns of 0 and 1 labels."""
    drop: tuple[str, ...] = ()
    """Columns of a table to leave out."""
    categories: tuple[str, ...] = ()
    """Columns of a table to read as texts though they look like numbers, such as postcodes."""
    image_size: int | None = None
    """Height and width to which pictures of a folder are cut and resized."""
    group: str | None = None
    """A column of a table, such as the patient. Rows with the same entry are not split up. It is not learnt from."""
    time: str | None = None
    """A column of a table by which rows are sorted. The last rows are held out. It is not learnt from."""
    split: Literal["stratified", "random", "ordered"] = "stratified"
    """Which rows are held out. stratified: at random, of each class its share. ordered: the last ones."""
    test: float = 0.2
    """Share of the rows that is held out, of data without test rows of their own. No choice is made by them."""
    validation: float | None = None
    """Share of the training rows by which --patience chooses and curves are drawn; by default a tenth with
    --patience, otherwise none."""
    folder: Path = Path("data")
    """Folder with the files of mnist, fashion_mnist, cifar10 and cifar100."""
    download: bool = False
    """Download the files that are not in --folder."""
    model: str = "auto"
    """auto: cnn for pictures, otherwise mlp. cnn: convolutions with batch norm and pooling.
    mlp: hidden layers alone. linear: one layer of weights. sigmoid: an mlp of sigmoids.
    my_model.py:net is your own: a layer, or a function of the number of outputs that returns one."""
    features: tuple[int, ...] = (32, 64)
    """Features of the blocks of a cnn. A block has two convolutions, and a pooling that halves the sides."""
    hidden: tuple[int, ...] = (128,)
    """Widths of the hidden layers."""
    activation: Activation = "relu"
    """Activation of the hidden layers of an mlp."""
    dropout: float = 0.2
    """Share of the hidden units, and of the channels of a cnn, dropped in training."""


@dataclass(frozen=True)
class Train(_Network):
    """Train a network. Ctrl-C saves, and --resume continues.

    Example: funcnet train --engine backprop --epochs 20
    """

    engine: Literal["autodiff", "backprop"] = "backprop"
    """Gradients by jax.grad, or by the hand-derived backward passes."""
    optimizer: Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"] = "adamw"
    """How gradients become steps."""
    learning_rate: float = 3e-3
    """Highest learning rate."""
    schedule: Literal["constant", "step", "exponential", "cosine", "warmup_cosine"] = "warmup_cosine"
    """How the learning rate changes. step: times 0.1 after each third of the run. exponential: to a hundredth.
    cosine: to zero. warmup_cosine: to zero after a warmup."""
    weight_decay: float = 0.05
    """Decay of the kernels: decoupled for adamw, an L2 term in the gradient for the others."""
    clip_norm: float | None = None
    """Largest global norm of a gradient."""
    epochs: int | None = None
    """Passes over the training rows; by default 30, and up to 125 where 30 make fewer than 1000 updates."""
    batch_size: int | None = None
    """Rows per update; by default 32, and an eighth of fewer than 256 rows."""
    accumulate: int = 1
    """Number of equal parts in which a batch is computed, one by one, to save memory. It must divide --batch-size."""
    seed: int = 0
    """Seed of the split, the initial parameters, the order of the rows and dropout."""
    patience: int | None = None
    """Stop early after this many epochs without improvement on the validation rows, and keep the best."""
    class_weights: Literal["balanced"] | None = None
    """balanced: rare classes count as much in the loss as common ones."""
    folds: int | None = None
    """Train so many times, each time with another part held out. The mean and spread of the results are printed."""
    fold: int | None = None
    """Train one of the --folds alone, from 1."""
    keep_checkpoints: int = 2
    """How many checkpoints to keep. One is written per epoch. With --patience the best one is kept too."""
    find_rate: bool = False
    """First look for a learning rate, in a short training whose rate rises, draw rates.png, and train with it."""
    from_run: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Begin with the weights of the run in this folder. Its network is the default here. Where the shapes differ, as
    for other classes, arrays begin anew."""
    freeze: str | None = None
    """Parameters that stay as they are: a regular expression that matches their whole path, such as '[0-6]/.*'."""
    resume: Path | None = None
    """Continue the run in this folder from its last checkpoint.
    With more --epochs the schedule is that of the longer run."""
    watchdog: float | None = None
    """After this many seconds without progress the process prints the stacks of its threads and ends."""
    tensorboard: bool = False
    """Write metrics for TensorBoard too, into tensorboard/; it needs pip install 'funcnet[tensorboard]'."""
    devices: int | None = None
    """Number of CPU devices of each process. The rows of a batch are divided among them. All GPUs and TPUs are used."""
    sharding: Literal["replicate", "fsdp"] = "replicate"
    """Where the parameters are on several devices. replicate: whole on each. fsdp: split over all."""
    coordinator: str | None = None
    """host:port of process 0, for a run of several processes. Not needed with SLURM, Open MPI and Kubernetes."""
    num_processes: int | None = None
    """How many processes the run has."""
    process_id: int | None = None
    """The number of this process, from 0."""
    debug_nans: bool = False
    """Stop at the operation that makes the first NaN. Training is slower."""
    config: Path | None = None
    """A TOML file with values for these options; options on the command line win."""
    output: Path | None = None
    """Folder for the results; by default the next free runs/001, runs/002 …"""


@dataclass(frozen=True, kw_only=True)
class _Machine:
    json: bool = False
    """Print one JSON value for other programs, instead of tables."""


@dataclass(frozen=True)
class Evaluate(_Machine):
    """Loss, accuracy and confusion matrix on held-out rows.

    Example: funcnet evaluate runs/001
    """

    run: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder that train wrote."""
    data: Path | None = None
    """Other rows, a file or folder as for train. It is said how many of them were trained on."""


@dataclass(frozen=True)
class Report:
    """One HTML page about a run: curves, mistakes, timing.

    Example: funcnet report runs/001
    """

    run: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder that train wrote. For an unfinished run the page shows what is known so far."""
    output: Path | None = None
    """The file, by default report.html in that folder. It needs no other files and no network."""
    most: int = 60
    """Number of elements at which the gradient check takes numeric derivatives; 0 leaves the check out."""


@dataclass(frozen=True)
class Export:
    """A trained model as one file, for jax without funcnet.

    Example: funcnet export runs/001
    """

    run: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder that train wrote."""
    output: Path | None = None
    """The file; by default model.stablehlo in that folder."""
    platforms: tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...] = ("cpu", "cuda", "tpu")
    """The platforms on which the file will run."""


@dataclass(frozen=True)
class Predict(_Machine):
    """Classes, probabilities or values for new rows or pictures.

    Example: funcnet predict runs/001 rows.npy
    """

    run: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder that train wrote, or a file that export wrote."""
    rows: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="ROWS")]
    """What the run was trained on: a table whose columns may be in any order, pictures or a folder of them,
    an .npy file, or a .csv of numbers for an array. - reads a table from standard input."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["--out"])] = None
    """A .csv file for the result; by default it is printed."""
    explain: bool = False
    """Draw which pixels each answer depends on, into explained.png beside --output, or in this folder."""


@dataclass(frozen=True)
class Summary(_Network, _Machine):
    """The layers of a network: shapes, parameters, memory.

    Example: funcnet summary --hidden 128 64
    """

    batch_size: int = 32
    """Rows per batch. The memory that is kept for the backward pass grows with it."""


@dataclass(frozen=True)
class Forecast(_Network, _Machine):
    """What a training step costs on TPUs that need not be here.

    Example: funcnet forecast --devices v5e:4x4
    """

    devices: str = "v5e:2x2"
    """The slice, as a kind and its chips along each axis: v5e:2x2, v6e:4x4, v5p:2x2x2."""
    batch_size: int = 1024
    """Rows per batch, over all devices."""
    engine: Literal["autodiff", "backprop"] = "backprop"
    """Gradients by jax.grad, or by the hand-derived backward passes."""
    optimizer: Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"] = "adamw"
    """How gradients become steps."""
    sharding: Literal["replicate", "fsdp"] = "replicate"
    """Where the parameters are on several devices. replicate: whole on each. fsdp: split over all."""


@dataclass(frozen=True)
class Check(_Machine):
    """Gradients by hand against autodiff and numeric derivatives.

    Example: funcnet check my_layers.py:gated --shape 8,4
    """

    targets: Positional[tuple[str, ...]] = ()
    """Names of the library (dense, softmax_cross_entropy), or your own as module:attribute or file.py:attribute.
    Yours is a Layer, a loss with a gradient, or a function without arguments.
    The function returns a Layer, a loss, (layer, x) or (loss, prediction, target).
    By default all of the library."""
    seeds: int = 1
    """Number of draws of parameters, inputs and cotangents for each target."""
    seed: int = 0
    """The seed of the first draw."""
    most: int = 2000
    """Elements of a target that numeric derivatives check one by one. Of a larger target they check a sample."""
    mutants: bool = False
    """Also make deliberately wrong variants of each gradient, to see that the check catches every one."""
    html: Path | None = None
    """File for the whole report as an HTML page."""
    shape: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Shape of the input of a Layer or loss that is given alone, the batch first: 8,4.
    With a dtype other than float32: 8,12:int32.
    For several inputs repeat the option, in their order or with names:
    --shape image=8,28,28,1 --shape text=8,12:int32."""


@dataclass(frozen=True)
class Checkpoints(_Machine):
    """The checkpoints of a run: list them, or verify every byte.

    Example: funcnet checkpoints verify runs/001
    """

    action: Positional[Literal["list", "verify"]]
    """list reads the manifests alone; verify compares every byte with its hash, also in the other files of a run."""
    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """The folder that train wrote, or one that checkpoints.saving wrote."""


@dataclass(frozen=True)
class New:
    """A small project: a network of your own, its test, options.

    Example: funcnet new digits
    """

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """A folder that is new or empty."""


@dataclass(frozen=True)
class Launch:
    """Train in several processes, started again if one fails.

    Example: funcnet launch -n 2 -- train --epochs 20
    """

    processes: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 2
    """How many processes."""
    max_restarts: int = 3
    """How often to start again after a failure."""
    shrink: bool = False
    """After a failure continue with fewer processes, instead of as many as before."""


Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Summary, tyro.conf.subcommand("summary")]
    | Annotated[Forecast, tyro.conf.subcommand("forecast")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Launch, tyro.conf.subcommand("launch")]
    | Annotated[Checkpoints, tyro.conf.subcommand("checkpoints")]
    | Annotated[New, tyro.conf.subcommand("new")]
)


def settled(chosen: Train, rows: int) -> Train:
    """The options with a batch size and a number of epochs for so many training rows."""
    batch_size = max(1, min(32, rows // 8)) if chosen.batch_size is None else chosen.batch_size
    epochs = chosen.epochs
    if epochs is None:
        epochs = min(125, max(30, -(-1000 // max(1, -(-rows // max(1, batch_size))))))
    return dataclasses.replace(chosen, batch_size=batch_size, epochs=epochs)


def as_train(chosen: Summary | Forecast) -> Train:
    """The options of `Train` that say what the data and the network are."""
    return Train(**{field.name: getattr(chosen, field.name) for field in dataclasses.fields(_Network)})

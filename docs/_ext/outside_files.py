"""Links from a page to a file or folder of the repository that is no page: the site has one that shows it."""

import ast
import html
from pathlib import Path

import notebooks
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

__all__ = ["OutsideLinks", "setup"]

ROOT = Path(__file__).parent.parent.parent
PAGES = {"README.md": "index", "CONTRIBUTING.md": "contributing", "CHANGELOG.md": "changelog"}


def page_of(path: Path) -> str:
    """`benchmarks/report.py` -> `files/benchmarks/report.py`"""
    relative = path.relative_to(ROOT).as_posix()
    return PAGES.get(relative, f"files/{relative}")


class OutsideLinks(SphinxTransform):
    """MyST makes of a file that is no document a download, and of a folder a reference that leads nowhere."""

    default_priority = 1

    def apply(self, **_):
        kinds = (addnodes.download_reference, addnodes.pending_xref)
        for node in list(self.document.findall(lambda node: isinstance(node, kinds) and node.get("reftype") == "myst")):
            target = self.target_of(node)
            if self.env.path2doc(str(target)) in self.env.found_docs or not target.exists():
                continue  # left to MyST, which warns where there is nothing
            link = addnodes.pending_xref(
                refdomain="", reftype="outside", reftarget=page_of(target), refdoc=self.env.docname, refwarn=True
            )
            text = node.children if node["refexplicit"] else [nodes.literal("", target.relative_to(ROOT).as_posix())]
            link += [child.deepcopy() for child in text]
            node.replace_self(link)
            if page_of(target).startswith("files/"):
                outside(self.env).add(target)

    def target_of(self, node) -> Path:
        """Where a link leads."""
        if node.get("refdomain") == "doc":  # of a Markdown file MyST has taken the ending off
            return (self.env.srcdir / f"{node['reftarget']}.md").resolve()
        return (Path(self.env.doc2path(self.env.docname)).parent / node["reftarget"]).resolve()


def outside(env) -> set[Path]:
    """The files and folders that pages of the site lead to."""
    if not hasattr(env, "outside_files"):
        env.outside_files = set()
    return env.outside_files


def resolve(app, env, node, contents):
    """Sphinx's `missing-reference`: where the page is, seen from the one with the link."""
    if node["reftype"] == "outside":
        uri = app.builder.get_relative_uri(node["refdoc"], node["reftarget"])
        return nodes.reference("", "", *node.children, internal=True, refuri=uri)
    return None


def pages(app):
    """Sphinx's `html-collect-pages`: every file, and for a folder the list of its files."""
    found = outside(app.env)
    folders = {path for path in found if path.is_dir()}
    files = (found - folders) | {file for folder in folders for file in shown(folder)}
    highlight = app.builder.highlighter.highlight_block
    for path in sorted(files):
        if path.suffix == ".ipynb":
            yield page(path, notebooks.as_html(path, lambda source: highlight(source, "python", linenos=False)))
        else:
            yield page(path, highlight(path.read_text("utf-8"), language_of(path), linenos=False))
    for path in sorted(folders):
        yield page(path, f"<ul>{''.join(map(entry, shown(path)))}</ul>")


def shown(folder: Path) -> list[Path]:
    """The files of a folder that have a page."""
    return sorted([*folder.glob("*.ipynb"), *folder.glob("*.py")])


def entry(file: Path) -> str:
    """A file of a folder, with its heading or the first paragraph of its docstring."""
    if file.suffix == ".ipynb":
        about = notebooks.title_of(file)
    else:
        about = (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").split("\n\n")[0]
    return f'<li><a href="{file.parent.name}/{file.name}.html">{file.name}</a>: {html.escape(about)}</li>'


def language_of(path: Path) -> str:
    return {".py": "python", ".toml": "toml", ".md": "markdown"}.get(path.suffix, "text")


def page(path, body):
    title = html.escape(path.relative_to(ROOT).as_posix())
    return page_of(path), {"title": title, "body": f"<h1>{title}</h1>{body}"}, "page.html"


def setup(app):
    app.add_transform(OutsideLinks)
    app.connect("missing-reference", resolve)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": False}

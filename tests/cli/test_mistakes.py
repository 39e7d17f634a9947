"""Mistakes (capability I3): each is one clear line and exit code 1."""

from __future__ import annotations

import pytest
from cluster_harness import Cli
from manifests_text import CONFIG, POD, WEB


def test_unknown_command_and_option(cli: Cli) -> None:
    assert cli.fails("gte", "pods") == 'error: unknown command "gte", did you mean "get"? (see: minik8s --help)'
    assert cli.fails("set", "image", "deploy/web").startswith('error: there is no "set" here: take kubectl')
    assert "--selctor" in cli.fails("get", "pods", "--selctor=a=b")
    assert "--for" in cli.fails("wait", "pod/x")


@pytest.mark.parametrize(
    ("word", "meant"), [("podz", "pods"), ("deploymnts", "deployments"), ("servce", "service"), ("nods", "nodes")]
)
def test_unknown_kind_on_the_command_line(cli: Cli, word: str, meant: str) -> None:
    line = cli.fails("get", word)
    assert line == f'error: the server doesn\'t have a resource type "{word}", did you mean "{meant}"?'


@pytest.mark.parametrize("word", ["Pods", "POD", "po", "pod", "pods.v1.", "Pod"])
def test_kinds_are_found_by_any_of_their_names_in_any_case(cli: Cli, word: str) -> None:
    assert cli.ok("get", word, "-o", "name") == ""


@pytest.mark.parametrize(
    ("api_version", "kind", "hint"),
    [
        ("apps/v1", "deployment", 'did you mean "Deployment"?'),
        ("v1", "pod", 'did you mean "Pod"?'),
        ("apps/v1", "Deploymnt", 'did you mean "Deployment"?'),
        ("apps/v1beta1", "Deployment", 'did you mean version "apps/v1"?'),
        ("v1", "Deployment", 'did you mean version "apps/v1"?'),
        ("v1", "Gizmo", 'no matches for kind "Gizmo" in version "v1"'),
    ],
)
def test_unknown_kind_wrong_case_or_version_in_a_file(cli: Cli, api_version: str, kind: str, hint: str) -> None:
    file = cli.file("x.yaml", f"apiVersion: {api_version}\nmetadata: {{name: x}}\nkind: {kind}\n")
    line = cli.fails("apply", "-f", file)
    assert line.startswith("error: x.yaml:3:1: ")
    assert line.endswith(hint)


def test_missing_file_and_empty_folder(cli: Cli) -> None:
    assert cli.fails("apply", "-f", "nowhere.yaml") == 'error: the path "nowhere.yaml" does not exist'
    (cli.home / "empty").mkdir()
    assert "has no .yaml" in cli.fails("apply", "-f", "empty")
    assert "say what: -f FILE" in cli.fails("apply")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: c: d\n", "x.yaml:2:5: mapping values are not allowed here"),
        (POD.replace("spec:", "metadata: {name: p2}\nspec:"), 'x.yaml:4:1: duplicate key "metadata"'),
        ("- 1\n", "x.yaml:1:1: an object is expected, with apiVersion, kind and metadata"),
        ("kind: Pod\nmetadata: {name: x}\n", "x.yaml:1:1: apiVersion is not set"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {labels: {a: b}}\n", "x.yaml:3:1: metadata.name is not set"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: 5\n",
            'x.yaml:4:3: metadata.name must be a string; write "5" in quotes',
        ),
    ],
)
def test_broken_yaml_says_file_line_and_column(cli: Cli, text: str, line: str) -> None:
    assert cli.fails("apply", "-f", cli.file("x.yaml", text)) == f"error: {line}"


def test_broken_json_says_file_line_and_column(cli: Cli) -> None:
    line = cli.fails("apply", "-f", cli.file("x.json", '{\n  "kind": "Pod",\n}\n'))
    assert line.startswith("error: x.json:3:1: ")
    assert 'duplicate key "a"' in cli.fails("apply", "-f", cli.file("y.json", '{"a": 1, "a": 2}'))


def test_unknown_field_is_named_with_its_path_and_place(cli: Cli) -> None:
    file = cli.file("x.yaml", POD.replace('image: "lab/busybox:1"}', 'imige: y, image: "lab/busybox:1"}', 1))
    line = cli.fails("apply", "-f", file)
    assert line == (
        'Error from server (BadRequest): error when applying "x.yaml:6:18": '
        'strict decoding error: unknown field "spec.containers[0].imige"'
    )
    done = cli("apply", "--validate=warn", "-f", file)
    assert done.code == 0, done
    assert 'Warning: unknown field "spec.containers[0].imige"' in done.err
    cli.ok("delete", "pod", "p1", "--force")
    assert cli("create", "--validate=ignore", "-f", file).err == ""


def test_invalid_value_is_told_with_its_place(cli: Cli) -> None:
    line = cli.fails("apply", "-f", cli.file("x.yaml", WEB.replace("replicas: 3", "replicas: -3")))
    assert line.startswith('The Deployment.apps "web" is invalid: spec.replicas: Invalid value: -3:')
    assert line.endswith("(x.yaml:7:3)")


def test_immutable_field(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=WEB)
    line = cli.fails(
        "apply",
        "-f",
        cli.file(
            "x.yaml",
            WEB.replace("matchLabels: {app: web}", "matchLabels: {app: v2}").replace(
                "{labels: {app: web}}", "{labels: {app: v2}}"
            ),
        ),
    )
    assert 'Deployment.apps "web" is invalid: spec.selector' in line
    assert "immutable" in line


def test_name_already_taken(cli: Cli) -> None:
    cli.ok("create", "-f", "-", stdin=CONFIG)
    line = cli.fails("create", "-f", "-", stdin=CONFIG)
    assert line == 'Error from server (AlreadyExists): error when creating "STDIN": configmaps "c1" already exists'


def test_missing_namespace(cli: Cli) -> None:
    line = cli.fails("create", "-n", "nowhere", "-f", cli.file("x.yaml", CONFIG))
    assert line == 'Error from server (NotFound): error when creating "x.yaml": namespaces "nowhere" not found'
    assert 'namespaces "nowhere" not found' in cli.fails("apply", "-n", "nowhere", "-f", "x.yaml")


def test_two_documents_about_one_object(cli: Cli) -> None:
    line = cli.fails("apply", "-f", cli.file("x.yaml", f"{CONFIG}---\n{CONFIG}"))
    assert line == 'error: x.yaml:6:1: ConfigMap "c1" is defined twice, first at x.yaml:1:1'
    assert cli.ok("get", "cm", "-o", "name") in ("", "configmap/kube-root-ca.crt\n")


def test_namespace_of_the_file_and_of_the_option_differ(cli: Cli) -> None:
    file = cli.file("x.yaml", CONFIG.replace("{name: c1}", "{name: c1, namespace: other}"))
    assert "(other) is not that of the option -n" in cli.fails("apply", "-f", file)


def test_missing_object(cli: Cli) -> None:
    assert cli.fails("get", "pod", "x") == 'Error from server (NotFound): pods "x" not found'
    assert cli.fails("delete", "deploy/x") == 'Error from server (NotFound): deployments.apps "x" not found'
    assert cli.ok("delete", "deploy/x", "--ignore-not-found") == ""


def test_server_that_does_not_run_is_named_with_the_remedy(cli: Cli) -> None:
    line = cli.fails("get", "pods", "--server", "https://127.0.0.1:1", "--kubeconfig", str(cli.kubeconfig))
    assert line == (
        'error: the connection to the server https://127.0.0.1:1 was refused: is it running? "minik8s start" starts it'
    )


def test_no_cluster_at_all(cli: Cli) -> None:
    empty = {"KUBECONFIG": "", "MINIK8S_DATA_DIR": str(cli.home)}
    line = cli.fails("get", "pods", env=empty)
    assert f"looked in {cli.home}/admin.kubeconfig" in line
    assert '"minik8s init" makes one' in line


def test_server_of_another_ca(cli: Cli) -> None:
    import base64
    import json

    from minik8s.pki import new_ca

    config = json.loads(cli.kubeconfig.read_text())
    stranger = base64.b64encode(new_ca("other").certificate).decode()
    config["clusters"][0]["cluster"]["certificate-authority-data"] = stranger
    file = cli.file("other.kubeconfig", json.dumps(config))
    assert "certificate that is not trusted" in cli.fails("get", "pods", "--kubeconfig", file)


def test_forbidden(cli: Cli) -> None:
    config = str(cli.server.kubeconfig_of("nobody"))
    line = cli.fails("get", "pods", "--kubeconfig", config, "--namespace=default")
    assert line.startswith('Error from server (Forbidden): pods is forbidden: User "nobody" cannot list')


def test_wrong_use_of_words(cli: Cli) -> None:
    assert "KIND/NAME" in cli.fails("get", "pods", "deploy/web")
    assert "unknown output format" in cli.fails("get", "pods", "-o", "xml")
    assert "use -o jsonpath" in cli.fails("get", "pods", "-o", "go-template={{.x}}")
    assert "unclosed" in cli.fails("get", "pods", "-o", "jsonpath={.items[")
    assert "name the objects" in cli.fails("delete", "pods")
    assert "server-side apply is not served yet" in cli.fails("apply", "--server-side", "-f", "-", stdin=CONFIG)

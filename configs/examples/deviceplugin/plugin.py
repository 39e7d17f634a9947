"""A device plugin in 30 lines: the devices are words in a file; a '!' behind one says that it is unhealthy.

python plugin.py --list /tmp/devices &
echo a b c! > /tmp/devices
kubectl apply -f pod.yaml
"""

import argparse
import asyncio
from pathlib import Path

from minik8s.deviceplugin import FOLDER, Answer, Device, Plugin, PluginDevice, PluginMount, serve


class Foo(Plugin):
    resource = "vendor.example/foo"

    def __init__(self, listed: Path, shared: Path) -> None:
        self.listed, self.shared = listed, shared

    async def devices(self):
        while True:
            yield [Device(word.rstrip("!"), healthy=not word.endswith("!")) for word in self.listed.read_text().split()]
            await asyncio.sleep(0.2)

    async def allocate(self, ids):
        self.shared.mkdir(exist_ok=True)
        (self.shared / "hello").write_text("hello\n")
        return Answer(
            envs={"FOO_IDS": ",".join(ids)},
            devices=(PluginDevice("/dev/null", "/dev/foo", "rw"),),
            mounts=(PluginMount(str(self.shared), "/run/foo", readOnly=True),),
        )


parser = argparse.ArgumentParser()
parser.add_argument("--list", type=Path, required=True)
parser.add_argument("--folder", type=Path, default=FOLDER)
args = parser.parse_args()
asyncio.run(serve(Foo(args.list, args.list.with_suffix(".shared")), args.folder))

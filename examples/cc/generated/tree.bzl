"""Two rules around a tree artifact: an action that writes a directory, and one that reads it."""

def _tree_impl(ctx):
    directory = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(
        outputs = [directory],
        command = """
set -eu
mkdir -p "$1"
cd "$1"
i=0
while [ $i -lt "$2" ]; do
  mkdir -p "level_$i/empty"
  echo "level $i" > "level_$i/file.txt"
  printf '#!/bin/sh\\necho level %s\\n' "$i" > "level_$i/run.sh"
  chmod +x "level_$i/run.sh"
  cd "level_$i"
  i=$((i + 1))
done
""",
        arguments = [directory.path, str(ctx.attr.depth)],
        mnemonic = "WriteTree",
    )
    return DefaultInfo(files = depset([directory]))

tree = rule(
    implementation = _tree_impl,
    attrs = {"depth": attr.int(default = 1)},
)

def _tree_listing_impl(ctx):
    output = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.run_shell(
        inputs = ctx.files.tree,
        outputs = [output],
        command = 'cd "$1" && find -L . -type f | LC_ALL=C sort | while read -r file; do echo "$file: $(tail -n 1 "$file")"; done > "$OLDPWD/$2"',
        arguments = [ctx.files.tree[0].path, output.path],
        mnemonic = "ListTree",
    )
    return DefaultInfo(files = depset([output]))

tree_listing = rule(
    implementation = _tree_listing_impl,
    attrs = {"tree": attr.label(mandatory = True)},
)

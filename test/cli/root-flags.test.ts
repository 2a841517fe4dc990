// --mount and --root-mode: every part of their forms, and what is refused.

import { describe, expect, test } from "vitest";
import { parseMountFlag, parseRootMode } from "../../src/cli/root-flags.ts";
import { readServeArguments } from "../../src/cli/serve-config.ts";

describe("parseMountFlag()", () => {
  const plain = { source: "/nix/store", destination: "/nix/store", writable: false, optional: false };

  test("reads mode, both paths, condition and optional", () => {
    expect(parseMountFlag("ro:/nix/store")).toEqual({ ...plain, condition: undefined });
    expect(parseMountFlag("rw:/a:/b,optional")).toEqual({
      source: "/a",
      destination: "/b",
      writable: true,
      optional: true,
      condition: undefined,
    });
    expect(parseMountFlag("ro:/nix/store,if=nix=1")).toEqual({ ...plain, condition: { name: "nix", value: "1" } });
  });

  test.each(["/a", "ro:", "ro:a", "xx:/a", "ro:/a:b", "ro:/a:/b:/c", "ro:/a/../b", "ro:/a,sometimes", "ro:/a,if=x"])(
    "refuses %s",
    (text) => expect(parseMountFlag(text)).toBeUndefined(),
  );
});

describe("parseRootMode()", () => {
  test("reads all three modes, for the empty instance too", () => {
    expect(parseRootMode("bst=input-root")).toEqual({ instance: "bst", mode: "input-root" });
    expect(parseRootMode("=host")).toEqual({ instance: "", mode: "host" });
    expect(parseRootMode("a/b=image:debian")).toEqual({ instance: "a/b", mode: { image: "debian" } });
  });

  test.each(["bst", "bst=chroot", "bst=image:", ""])("refuses %j", (text) => {
    expect(parseRootMode(text)).toBeUndefined();
  });
});

describe("readServeArguments()", () => {
  test("an action may name the property that a mount asks for", () => {
    const { config } = readServeArguments(["--data-dir", ":memory:", "--mount", "ro:/nix/store,if=nix=1"], {});
    expect(config.platform.properties.get("nix")).toEqual(["1"]);
  });

  test("an image that is not configured is refused by name", () => {
    const args = ["--data-dir", ":memory:", "--root-mode", "x=image:debian"];
    expect(() => readServeArguments(args, {})).toThrow('--root-mode names the image "debian", and --image names none');
  });

  test("mounts in the environment are separated by semicolons", () => {
    const { config } = readServeArguments(["--data-dir", ":memory:"], {
      LEDGE_MOUNT: "ro:/nix/store,if=nix=1;ro:/opt,optional",
    });
    expect(config.platform.mounts.map(({ source }) => source)).toEqual(["/nix/store", "/opt"]);
  });
});

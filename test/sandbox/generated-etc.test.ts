// The generated /etc shows what toolchains need and nothing that is secret or says which machine this is.

import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GeneratedEtc } from "../../src/sandbox/generated-etc.ts";

let base: string;
let etc: GeneratedEtc;
const options = { uid: 1000, gid: 1000, hostName: "sandbox", network: "none" } as const;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "ledge-etc-"));
  const host = join(base, "host");
  mkdirSync(join(host, "ssl", "private"), { recursive: true });
  mkdirSync(join(host, "alternatives"));
  mkdirSync(join(host, "java-17"));
  writeFileSync(join(host, "ld.so.cache"), "cache");
  writeFileSync(join(host, "shadow"), "secret", { mode: 0o640 });
  writeFileSync(join(host, "passwd"), "someone:x:1234:");
  writeFileSync(join(host, "machine-id"), "0123");
  writeFileSync(join(host, "ssl", "cert.pem"), "public");
  writeFileSync(join(host, "ssl", "key.pem"), "secret", { mode: 0o600 });
  writeFileSync(join(host, "ssl", "private", "key.pem"), "secret");
  chmodSync(join(host, "ssl", "private"), 0o710);
  writeFileSync(join(host, "java-17", "security"), "java");
  symlinkSync("/usr/bin/gcc-12", join(host, "alternatives", "cc"));
  writeFileSync(join(host, "resolv.conf"), "nameserver 192.0.2.1");
  etc = new GeneratedEtc(join(base, "generated"), host);
});
afterEach(() => rmSync(base, { recursive: true }));

describe("GeneratedEtc", () => {
  it("copies what toolchains read, links as links", () => {
    const path = etc.current(options);
    expect(readFileSync(join(path, "ld.so.cache"), "utf8")).toBe("cache");
    expect(readFileSync(join(path, "java-17", "security"), "utf8")).toBe("java");
    expect(readlinkSync(join(path, "alternatives", "cc"))).toBe("/usr/bin/gcc-12");
  });

  it("leaves out what not everybody may read, and what nobody needs", () => {
    const path = etc.current(options);
    expect(readdirSync(join(path, "ssl"))).toEqual(["cert.pem"]);
    for (const name of ["shadow", "machine-id", "resolv.conf"]) expect(readdirSync(path)).not.toContain(name);
  });

  it("writes users and hosts itself", () => {
    const path = etc.current({ ...options, uid: 77, gid: 78 });
    expect(readFileSync(join(path, "passwd"), "utf8")).toBe(
      "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\nbuild:x:77:78:build:/tmp:/bin/sh\n",
    );
    expect(readFileSync(join(path, "group"), "utf8")).toContain("build:x:78:\n");
    expect(readFileSync(join(path, "hosts"), "utf8")).toContain("127.0.0.1 localhost sandbox\n");
  });

  it("names servers of the host only where its network is used", () => {
    const path = etc.current({ ...options, network: "host" });
    expect(readFileSync(join(path, "resolv.conf"), "utf8")).toBe("nameserver 192.0.2.1");
  });

  it("is made once for each kind, and the same kind is handed out again", () => {
    const first = etc.current(options);
    expect(etc.current({ ...options, uid: 5 })).not.toBe(first);
    expect(etc.current(options)).toBe(first);
  });

  it("keeps the number of kinds bounded", () => {
    for (let uid = 1; uid <= 60; uid++) etc.current({ ...options, uid });
    expect(readdirSync(join(base, "generated")).length).toBeLessThanOrEqual(32);
  });
});

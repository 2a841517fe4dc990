// What every transport does with connections: many streams, back pressure, HTTP/1.1 on the same port, an orderly end.

import { mkdtemp, rm } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { connect as connectSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import * as grpc from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { formatAddress } from "../../src/grpc/server.ts";
import {
  asIs,
  http2Address,
  path,
  succeed,
  TransportFixture,
  unary,
  type CreateTransport,
} from "./transport-fixture.ts";

export function describeConnectionContract(name: string, create: CreateTransport): void {
  describe(name, () => {
    const fixture = new TransportFixture(create);

    it("serves 1,000 streams of one connection at once", async () => {
      const { client, service, transport } = await fixture.start();
      service.holdUntil(1000);
      const answers = await Promise.all(
        Array.from({ length: 1000 }, (_, index) => succeed(client, "Gather", Buffer.from(String(index)))),
      );
      expect(answers.map(String)).toEqual(Array.from({ length: 1000 }, (_, index) => String(index)));
      await expect.poll(() => transport.activeCalls).toBe(0);
    });

    it("stops reading a client that is faster than the handler (back pressure in)", async () => {
      const { client, service } = await fixture.start();
      const call = client.makeClientStreamRequest<Buffer, Buffer>(path("NeverReads"), asIs, asIs, () => undefined);
      call.on("error", () => undefined);
      let taken = 0;
      const writeMore = (): void => {
        call.write(Buffer.alloc(64 * 1024), () => {
          taken++;
          setImmediate(writeMore);
        });
      };
      writeMore();
      await service.nextStart();
      let before = -1;
      await expect
        .poll(
          () => {
            const still = before === taken;
            before = taken;
            return still;
          },
          { interval: 200, timeout: 10_000 },
        )
        .toBe(true);
      // Far less than an endless upload: the windows, and what grpc-js and the kernel hold.
      expect(taken * 64).toBeLessThan(40 * 1024);
      call.cancel();
    });

    it("stops the handler's writes when the client does not read (back pressure out)", async () => {
      const { address, service } = await fixture.start();
      const session = connectHttp2(http2Address(address));
      fixture.cleanups.push(() => session.destroy());
      const stream = session.request({
        ":method": "POST",
        ":path": path("Flood"),
        "content-type": "application/grpc",
        te: "trailers",
      });
      stream.on("error", () => undefined);
      stream.end(Buffer.from([0, 0, 0, 0, 0]));
      await service.nextStart();
      let before = -1;
      await expect
        .poll(
          () => {
            const still = before === service.floodedMessages;
            before = service.floodedMessages;
            return still;
          },
          { interval: 200, timeout: 10_000 },
        )
        .toBe(true);
      expect(service.floodedMessages).toBeLessThan(200);
      stream.close(8);
      expect(await service.nextAbort()).toBe("CANCELLED");
    });

    it("serves HTTP/1.1 on the same port, octet by octet too", async () => {
      const { address } = await fixture.start();
      if (address.kind !== "tcp") throw new Error("unreachable");
      const { port } = address;
      const answer = await new Promise<string>((resolve, reject) => {
        const request = httpRequest(
          { port, host: "127.0.0.1", path: "/cas/abc", method: "PUT", agent: false },
          (response) => {
            text(response).then(resolve, reject);
          },
        );
        request.on("error", reject);
        request.end(Buffer.alloc(2_000_000));
      });
      expect(answer).toBe("PUT /cas/abc 2000000");
      const socket = connectSocket(port, "127.0.0.1").on("error", () => undefined);
      for (const character of "PRI_X /a HTTP/1.1\r\nHost: a\r\n\r\n") {
        socket.write(character);
        await new Promise((resolve) => setImmediate(resolve));
      }
      const refused = await text(socket).catch(() => "");
      expect(refused).toMatch(/^(HTTP\/1\.1 400|$)/);
      const put = connectSocket(port, "127.0.0.1");
      for (const character of "PUT /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx") {
        put.write(character);
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(await text(put)).toContain("PUT /a 1");
    });

    it("listens on a unix socket, and replaces the file of a dead server", async () => {
      const directory = await mkdtemp(join(tmpdir(), "transport-"));
      fixture.cleanups.push(() => rm(directory, { recursive: true, force: true }));
      const socketPath = join(directory, "socket");
      const first = await fixture.start({ kind: "unix", path: socketPath });
      expect((await succeed(first.client, "Sync", Buffer.from("x"))).toString()).toBe("x");
      const metadata = JSON.parse((await succeed(first.client, "Metadata", Buffer.alloc(0))).toString()) as Record<
        string,
        unknown
      >;
      expect(metadata["peer"]).toBe("unix:");
      await expect(fixture.start({ kind: "unix", path: socketPath })).rejects.toThrow(/another server/);
    });

    it("names the address that it cannot listen on", async () => {
      const { address } = await fixture.start();
      await expect(fixture.start(address)).rejects.toThrow(new RegExp(`${formatAddress(address)}.*in use`));
    });

    it("closes gracefully: calls under way finish, new connections are refused", async () => {
      const { client, service, transport, address } = await fixture.start();
      const slow = succeed(client, "Released", Buffer.from("late"));
      await service.nextStart();
      const closed = transport.close({ signal: new AbortController().signal });
      if (address.kind !== "tcp") throw new Error("unreachable");
      await expect(
        new Promise((resolve, reject) => {
          connectSocket(address.port, "127.0.0.1").once("connect", resolve).once("error", reject);
        }),
      ).rejects.toThrow("ECONNREFUSED");
      service.release();
      expect((await slow).toString()).toBe("late");
      await closed;
      expect(transport.activeCalls).toBe(0);
    });

    it("closes at once when the grace is over, cancelling what runs", async () => {
      const { client, service, transport } = await fixture.start();
      const hanging = unary(client, "Hang", Buffer.alloc(0));
      await service.nextStart();
      const grace = new AbortController();
      const closed = transport.close({ signal: grace.signal });
      grace.abort();
      await closed;
      expect(await service.nextAbort()).toBe("CANCELLED");
      expect((await hanging).error?.code).toBe(grpc.status.UNAVAILABLE);
    });

    it("gives each connection its own id, the same for all its calls", async () => {
      const first = await fixture.start();
      const ids: unknown[] = [];
      const other = new grpc.Client(formatAddress(first.address), grpc.credentials.createInsecure(), {
        "grpc.use_local_subchannel_pool": 1,
      });
      fixture.cleanups.push(() => other.close());
      for (const client of [first.client, first.client, other]) {
        ids.push(
          (JSON.parse((await succeed(client, "Metadata", Buffer.alloc(0))).toString()) as Record<string, unknown>)[
            "connectionId"
          ],
        );
      }
      expect(ids[0]).toBe(ids[1]);
      expect(ids[2]).not.toBe(ids[0]);
    });
  });
}

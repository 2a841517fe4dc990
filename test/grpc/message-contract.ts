// What every transport makes of requests on the wire: framing, limits, encodings, routes; seen through raw requests.

import { deflateSync, gzipSync } from "node:zlib";
import * as grpc from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { rawCall } from "./raw-call.ts";
import { MAX_REQUEST_BYTES } from "./test-service.ts";
import { http2Address, path, succeed, TransportFixture, unary, type CreateTransport } from "./transport-fixture.ts";

export function describeMessageContract(name: string, create: CreateTransport): void {
  describe(name, () => {
    const fixture = new TransportFixture(create);

    it("routes on the exact path only (A-30)", async () => {
      const { address } = await fixture.start();
      for (const odd of [
        "/test.Echo/Sync?x",
        "//test.Echo/Sync",
        "/test.Echo/sync",
        "/test.Echo%2fSync",
        "/test.Echo/Sync/",
      ]) {
        expect(await rawCall(http2Address(address), odd, {})).toMatchObject({ grpcStatus: "12" });
      }
    });

    it("refuses requests without gRPC content or with another method, naming both kinds of status (3.1)", async () => {
      const { address } = await fixture.start();
      const base = http2Address(address);
      expect(await rawCall(base, path("Sync"), { "content-type": "application/json" })).toMatchObject({
        httpStatus: 415,
        grpcStatus: "3",
      });
      expect(await rawCall(base, path("Sync"), { "content-type": "application/grpc-web" })).toMatchObject({
        httpStatus: 415,
      });
      expect(await rawCall(base, path("Sync"), { ":method": "PUT" })).toMatchObject({
        httpStatus: 405,
        grpcStatus: "13",
      });
      expect(await rawCall(base, path("Sync"), { "content-type": "application/grpc+proto" })).toMatchObject({
        grpcStatus: "0",
      });
    });

    it("reads messages however they are cut into DATA frames (G-20)", async () => {
      const { address } = await fixture.start();
      const message = Buffer.concat([Buffer.from([0, 0, 0, 0, 5]), Buffer.from("hello")]);
      for (let cut = 0; cut <= message.length; cut++) {
        const body = [message.subarray(0, cut), message.subarray(cut)];
        const answer = await rawCall(http2Address(address), path("Sync"), {}, { body });
        expect(answer.message?.toString()).toBe("hello");
      }
    });

    it("reads several messages of one DATA frame", async () => {
      const { address } = await fixture.start();
      const one = Buffer.from([0, 0, 0, 0, 1, 0x61]);
      const body = [Buffer.concat(Array.from({ length: 500 }, () => one))];
      expect((await rawCall(http2Address(address), path("Sum"), {}, { body })).message?.toString()).toBe("500");
    });

    it("refuses broken framing: two messages, none, an end inside a message, a wrong flag (G-25)", async () => {
      const { address } = await fixture.start();
      const base = http2Address(address);
      const one = Buffer.from([0, 0, 0, 0, 1, 0x61]);
      expect(await rawCall(base, path("Sync"), {}, { body: [one, one] })).toMatchObject({ grpcStatus: "12" });
      expect(await rawCall(base, path("Sync"), {}, { body: [] })).toMatchObject({ grpcStatus: "12" });
      expect(await rawCall(base, path("Sync"), {}, { body: [one.subarray(0, 3)] })).toMatchObject({ grpcStatus: "13" });
      expect(await rawCall(base, path("Sum"), {}, { body: [Buffer.from([0, 0, 0, 0, 9, 1])] })).toMatchObject({
        grpcStatus: "13",
      });
      expect(await rawCall(base, path("Sync"), {}, { body: [Buffer.from([2, 0, 0, 0, 0])] })).toMatchObject({
        grpcStatus: "13",
      });
    });

    it("refuses a message over the method's limit on its prefix, naming the limit (G-21, A-26)", async () => {
      const { address, client } = await fixture.start();
      const { error } = await unary(client, "Small", Buffer.alloc(1025));
      expect(error?.code).toBe(grpc.status.RESOURCE_EXHAUSTED);
      expect(error?.details).toContain("1024");
      expect((await succeed(client, "Small", Buffer.alloc(1024))).length).toBe(1024);
      const lie = await rawCall(
        http2Address(address),
        path("Sum"),
        {},
        { body: [Buffer.from([0, 255, 255, 255, 255])], open: true },
      );
      expect(lie.grpcStatus).toBe("8");
    });

    it("takes gzip and deflate, bounded by the message limit (G-22, G-23, A-27)", async () => {
      const { address } = await fixture.start();
      const base = http2Address(address);
      const frame = (bytes: Uint8Array): Buffer => {
        const prefix = Buffer.from([1, 0, 0, 0, 0]);
        prefix.writeUInt32BE(bytes.length, 1);
        return Buffer.concat([prefix, bytes]);
      };
      const plain = Buffer.alloc(100_000, "xyz");
      for (const [encoding, bytes] of [
        ["gzip", gzipSync(plain)],
        ["deflate", deflateSync(plain)],
      ] as const) {
        for (const method of ["Sync", "Chat"]) {
          const answer = await rawCall(base, path(method), { "grpc-encoding": encoding }, { body: [frame(bytes)] });
          expect(answer.message?.equals(plain)).toBe(true);
        }
      }
      const bomb = frame(gzipSync(Buffer.alloc(MAX_REQUEST_BYTES + 1)));
      expect(await rawCall(base, path("Sync"), { "grpc-encoding": "gzip" }, { body: [bomb] })).toMatchObject({
        grpcStatus: "8",
      });
      expect(
        await rawCall(base, path("Sync"), { "grpc-encoding": "gzip" }, { body: [frame(Buffer.from("nonsense"))] }),
      ).toMatchObject({ grpcStatus: "13" });
      expect(await rawCall(base, path("Sync"), {}, { body: [frame(gzipSync(plain))] })).toMatchObject({
        grpcStatus: "13",
      });
      const unknown = await rawCall(base, path("Sync"), { "grpc-encoding": "snappy" }, { body: [frame(plain)] });
      expect(unknown).toMatchObject({ grpcStatus: "12", acceptEncoding: "identity,gzip,deflate" });
    });
  });
}

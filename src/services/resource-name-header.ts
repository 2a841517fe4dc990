// The header that repeats a ByteStream call's resource name, so that proxies can route without reading messages.
//
// Source: remote_execution.proto, comment of ContentAddressableStorage: when present it must equal the message's name.

import { invalidArgument } from "../base/status.ts";
import type { Call } from "../grpc/service.ts";

const RESOURCE_NAME_HEADER = "build.bazel.remote.execution.v2.resource-name";

export function assertResourceNameHeader(call: Call, resourceName: string): void {
  const header = call.metadata(RESOURCE_NAME_HEADER);
  if (header !== undefined && header !== resourceName) {
    throw invalidArgument(`header ${RESOURCE_NAME_HEADER} "${header}" differs from resource_name "${resourceName}"`);
  }
}

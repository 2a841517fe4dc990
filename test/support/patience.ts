// How long tests with real clients may take before they count as hung.
//
// Not an expectation: eight Bazels on two cores that also run other tests are slow, and nothing is wrong with that.

export const patient = { timeout: 240_000 } as const;

#include <cstdlib>
#include <iostream>

#include "text/count.h"
#include "text/wrap.h"

static void Expect(bool condition, const char* what) {
  if (condition) return;
  std::cerr << "failed: " << what << std::endl;
  std::exit(1);
}

int main() {
  const auto counts = text::CountWords("The cat and the dog. A dog!");
  Expect(counts.size() == 2, "stop words are left out");
  Expect(counts[0].first == "dog" && counts[0].second == 2, "the most frequent word comes first");
  Expect(text::Wrap("one two three", 7) == "one two\nthree\n", "lines break before they are too long");
  std::cout << "all good" << std::endl;
}

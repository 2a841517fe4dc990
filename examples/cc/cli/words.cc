#include <iostream>
#include <iterator>

#include "text/count.h"
#include "text/wrap.h"

int main() {
  const std::string input((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
  std::string list;
  for (const auto& entry : text::CountWords(input)) list += entry.first + ":" + std::to_string(entry.second) + " ";
  std::cout << text::Wrap(list, 72);
}

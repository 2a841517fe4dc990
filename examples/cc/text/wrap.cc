#include "text/wrap.h"

#include <sstream>

namespace text {

std::string Wrap(const std::string& input, std::size_t width) {
  std::istringstream words(input);
  std::string word, line, result;
  while (words >> word) {
    if (!line.empty() && line.size() + 1 + word.size() > width) {
      result += line + '\n';
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  return line.empty() ? result : result + line + '\n';
}

}  // namespace text

#ifndef TEXT_WRAP_H_
#define TEXT_WRAP_H_

#include <cstddef>
#include <string>

namespace text {

// Breaks `input` at spaces into lines of at most `width` bytes; a longer word has a line of its own.
std::string Wrap(const std::string& input, std::size_t width);

}  // namespace text

#endif  // TEXT_WRAP_H_

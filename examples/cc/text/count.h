#ifndef TEXT_COUNT_H_
#define TEXT_COUNT_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace text {

// Counts the words of `input` without the stop words, most frequent first, equal counts in alphabetical order.
std::vector<std::pair<std::string, std::size_t>> CountWords(const std::string& input);

}  // namespace text

#endif  // TEXT_COUNT_H_

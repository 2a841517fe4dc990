#include "text/count.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

namespace text {
namespace {

const std::set<std::string>& StopWords() {
  static const std::set<std::string> words = {
#include "text/stop_words.inc"
  };
  return words;
}

}  // namespace

std::vector<std::pair<std::string, std::size_t>> CountWords(const std::string& input) {
  std::map<std::string, std::size_t> counts;
  std::string word;
  for (std::size_t i = 0; i <= input.size(); ++i) {
    const unsigned char byte = i < input.size() ? static_cast<unsigned char>(input[i]) : ' ';
    if (std::isalpha(byte)) {
      word.push_back(static_cast<char>(std::tolower(byte)));
    } else if (!word.empty()) {
      if (StopWords().count(word) == 0) ++counts[word];
      word.clear();
    }
  }
  std::vector<std::pair<std::string, std::size_t>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return sorted;
}

}  // namespace text

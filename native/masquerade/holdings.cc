#include "masquerade/holdings.h"

#include <algorithm>
#include <bit>

#include "netlink/hash.h"

namespace xfrmesh {
namespace {

constexpr Key kNobody{};

}  // namespace

std::size_t RowIndex::home(const Key& key) const {
  const Bytes bytes(key);
  const std::uint64_t hash = mixed(mixed(0, load<std::uint64_t>(bytes)), load<std::uint64_t>(bytes, sizeof hash));
  // Once more: bytes at the end of a word, where addresses differ, have not come down to the lowest bits by then.
  return mixed(hash, 0) & (places_.size() - 1);
}

std::uint32_t RowIndex::find(const std::vector<Row>& rows, const Key& key) const {
  if (places_.empty()) return kNoRow;
  const std::size_t mask = places_.size() - 1;
  for (std::size_t i = home(key);; i = (i + 1) & mask) {
    const std::uint32_t row = places_[i];
    if (row == kNoRow || rows[row].*key_ == key) return row;
  }
}

void RowIndex::add(const std::vector<Row>& rows, std::uint32_t row) {
  reserve(rows, count_ + 1);
  const std::size_t mask = places_.size() - 1;
  std::size_t i = home(rows[row].*key_);
  while (places_[i] != kNoRow) i = (i + 1) & mask;
  places_[i] = row;
  count_++;
}

void RowIndex::remove(const std::vector<Row>& rows, std::uint32_t row) {
  const std::size_t mask = places_.size() - 1;
  std::size_t gap = home(rows[row].*key_);
  while (places_[gap] != row) gap = (gap + 1) & mask;
  // Those that a search would no longer come to move up.
  for (std::size_t i = (gap + 1) & mask; places_[i] != kNoRow; i = (i + 1) & mask) {
    const std::size_t from = home(rows[places_[i]].*key_);
    if (((i - from) & mask) < ((i - gap) & mask)) continue;
    places_[gap] = places_[i];
    gap = i;
  }
  places_[gap] = kNoRow;
  count_--;
}

void RowIndex::reserve(const std::vector<Row>& rows, std::size_t count) {
  if (count * 2 <= places_.size()) return;
  const auto before = std::move(places_);
  places_.assign(std::bit_ceil(count * 2), kNoRow);
  count_ = 0;
  for (const std::uint32_t row : before)
    if (row != kNoRow) add(rows, row);
}

std::uint32_t Holdings::of(const Key& owner) const { return owner == kNobody ? kNoRow : byOwner_.find(rows_, owner); }

void Holdings::reserve(std::size_t more) {
  const std::size_t needed = rows_.size() + more - std::min(more, free_.size());
  if (needed <= rows_.capacity()) return;
  rows_.reserve(std::max(needed, 2 * rows_.capacity()));
  byOwner_.reserve(rows_, needed);
  byAddress_.reserve(rows_, needed);
}

std::uint32_t Holdings::add(const Row& mapping) {
  std::uint32_t row = end();
  if (free_.empty()) {
    rows_.push_back(mapping);
  } else {
    row = free_.back();
    free_.pop_back();
    rows_[row] = mapping;
  }
  rows_[row].next = kNoRow;
  if (mapping.kind == Kind::kElement) byAddress_.add(rows_, row);
  if (mapping.owner == kNobody) return row;
  const std::uint32_t first = byOwner_.find(rows_, mapping.owner);
  if (first == kNoRow) {
    byOwner_.add(rows_, row);
  } else {
    rows_[row].next = rows_[first].next;
    rows_[first].next = row;
  }
  return row;
}

void Holdings::remove(std::uint32_t row) {
  Row& gone = rows_[row];
  if (gone.kind == Kind::kElement) byAddress_.remove(rows_, row);
  gone.kind = Kind::kNone;
  free_.push_back(row);
  const std::uint32_t first = of(gone.owner);
  if (first == kNoRow) return;
  if (first == row) {
    byOwner_.remove(rows_, row);
    if (gone.next != kNoRow) byOwner_.add(rows_, gone.next);
    return;
  }
  std::uint32_t before = first;
  while (rows_[before].next != row) before = rows_[before].next;
  rows_[before].next = gone.next;
}

void Holdings::demote(std::uint32_t row) {
  byAddress_.remove(rows_, row);
  rows_[row].kind = Kind::kRule;
}

}  // namespace xfrmesh

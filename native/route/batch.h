// A batch of records of neighbours as a commit takes it.
#pragma once

#include <vector>

#include "netlink/exchange.h"
#include "route/record.h"

namespace xfrmesh {

class NeighbourBatch final : public Batch {
 public:
  // `records` must outlive the batch.
  explicit NeighbourBatch(Bytes records) : records_(records) {}

  bool parse() override;

  [[nodiscard]] std::uint32_t size() const override { return count_; }
  std::size_t encode(std::uint32_t index, std::uint16_t flags, std::uint32_t sequence,
                     std::span<std::byte> room) override;
  [[nodiscard]] std::uint64_t identity(std::uint32_t index) const override;
  [[nodiscard]] Recovery recovery(std::uint32_t index) const override;
  std::size_t encodeQuestion(std::uint32_t index, std::uint32_t sequence, std::span<std::byte> room) override;
  // Of a deletion: whether what is there is what was to go, and not an FDB entry that leads elsewhere.
  bool confirms(std::uint32_t index, const Message& answer) override;

 private:
  [[nodiscard]] NeighbourRecord record(std::uint32_t index) const {
    return load<NeighbourRecord>(records_, index * kNeighbourBytes);
  }

  Bytes records_;
  std::uint32_t count_ = 0;
};

}  // namespace xfrmesh

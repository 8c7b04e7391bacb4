#include <endian.h>
#include <linux/netfilter/nf_tables.h>

#include "nft/echo.h"
#include "test/check.h"
#include "test/nft_records.h"

namespace xfrmesh::test {
namespace {

constexpr std::uint64_t kHandle = 0x0102030405;

std::vector<std::byte> described(std::uint16_t attribute, Bytes value) {
  std::vector<std::byte> payload;
  appendBytes(payload, bytesOf(nfgenmsg{.nfgen_family = 1, .version = 0, .res_id = 0}));
  appendBytes(payload, attributeOf(NFTA_TABLE_NAME, bytesOfList({'t', 0})));
  appendBytes(payload, attributeOf(attribute, value));
  return payload;
}

std::uint64_t handleIn(std::uint16_t type, Bytes payload) {
  const nlmsghdr header{.nlmsg_len = static_cast<std::uint32_t>(sizeof(nlmsghdr) + payload.size()),
                        .nlmsg_type = static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type),
                        .nlmsg_flags = 0,
                        .nlmsg_seq = 1,
                        .nlmsg_pid = 0};
  return handleOf({.header = header, .payload = payload});
}

}  // namespace

TEST(handles_are_read_from_what_the_kernel_echoes) {
  const std::uint64_t wire = htobe64(kHandle);
  const std::pair<std::uint16_t, std::uint16_t> kinds[] = {{NFT_MSG_NEWTABLE, NFTA_TABLE_HANDLE},
                                                           {NFT_MSG_NEWCHAIN, NFTA_CHAIN_HANDLE},
                                                           {NFT_MSG_NEWRULE, NFTA_RULE_HANDLE},
                                                           {NFT_MSG_NEWSET, NFTA_SET_HANDLE},
                                                           {NFT_MSG_NEWOBJ, NFTA_OBJ_HANDLE}};
  for (const auto& [type, attribute] : kinds) {
    const auto payload = described(attribute, bytesOf(wire));
    CHECK_EQ(handleIn(type, payload), kHandle);
    // None of its own, cut off, or of another length.
    CHECK_EQ(handleIn(NFT_MSG_NEWSETELEM, payload), 0U);
    CHECK_EQ(handleIn(type, described(attribute + 20, bytesOf(wire))), 0U);
    CHECK_EQ(handleIn(type, described(attribute, bytesOfList({0, 0, 0, 1}))), 0U);
    for (std::size_t size = 0; size < payload.size(); size++) CHECK_EQ(handleIn(type, Bytes(payload).first(size)), 0U);
  }
}

TEST(handles_between_two_are_known_where_they_must_be) {
  const std::vector<RuleRun> runs = {{.first = 1, .last = 3}, {.first = 5, .last = 7}};
  std::vector<double> handles = {0, 7, 0, 9, 0, 20, 0, 22};
  CHECK(fillHandles(handles, runs));
  CHECK(handles == (std::vector<double>{0, 7, 8, 9, 0, 20, 21, 22}));
  // Something else got a number in between; one was not told; neither was.
  for (const auto& told : {std::vector<double>{0, 7, 0, 10}, {0, 7, 0, 0}, {0, 0, 0, 9}, {0, 0, 0, 0}, {0, 7}}) {
    auto some = told;
    CHECK(!fillHandles(some, {runs[0]}));
  }
}

}  // namespace xfrmesh::test

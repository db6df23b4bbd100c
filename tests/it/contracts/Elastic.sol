// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// A token of shares: what everybody has grows and shrinks at once without a log, as with a rebasing one, and a
/// transfer may give less than its log says, as with one that takes a fee and is silent about it.
contract Elastic {
    string public constant name = "Elastic Dollar";
    string public constant symbol = "ELA";
    uint256 public constant decimals = 6;

    uint256 public index = 1e6;
    uint256 public perMille;
    mapping(address => uint256) public shares;

    event Transfer(address indexed from, address indexed to, uint256 value);

    function mint(address to, uint256 value) external {
        shares[to] += (value * 1e6) / index;
        emit Transfer(address(0), to, value);
    }

    function transfer(address to, uint256 value) external {
        uint256 moved = (value * 1e6) / index;
        shares[msg.sender] -= moved;
        shares[to] += moved - (moved * perMille) / 1000;
        emit Transfer(msg.sender, to, value);
    }

    function rebase(uint256 index_, uint256 perMille_) external {
        index = index_;
        perMille = perMille_;
    }

    function balanceOf(address who) external view returns (uint256) {
        return (shares[who] * index) / 1e6;
    }
}

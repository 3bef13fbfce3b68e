"""Muon for the matrices of the layers, Adam for everything else."""

import torch


def orthogonalized(matrices):
    """The nearest semi-orthogonal matrices, roughly: five quintic Newton-Schulz steps.

    matrices: [n, rows, columns]. Singular values end between about 0.7 and 1.2. The coefficients
    are those of Muon (Jordan et al. 2024).
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if is_tall else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(5):
        gram = torch.bmm(x, x.transpose(1, 2))
        x = 3.4445 * x + torch.bmm(-4.7750 * gram + 2.0315 * torch.bmm(gram, gram), x)
    return x.transpose(1, 2) if is_tall else x


class Muon:
    """Momentum whose matrices are orthogonalized; matrices of a shape are stacked for speed."""

    def __init__(self, parameters, momentum=0.95, decay=0.02):
        self.momentum, self.decay = momentum, decay
        self.groups = {}
        for parameter in parameters:
            self.groups.setdefault(tuple(parameter.shape), []).append(parameter)
        self.buffers = {shape: torch.zeros(len(group), *shape)
                        for shape, group in self.groups.items()}

    @torch.no_grad()
    def step(self, rate):
        for shape, group in self.groups.items():
            grad = torch.stack([parameter.grad for parameter in group])
            buffer = self.buffers[shape]
            buffer.mul_(self.momentum).add_(grad, alpha=1 - self.momentum)
            update = orthogonalized(grad.lerp(buffer, self.momentum))
            update *= max(1.0, shape[0] / shape[1]) ** 0.5
            for parameter, change in zip(group, update):
                parameter.mul_(1 - rate * self.decay).sub_(change, alpha=rate)


class Optimizers:
    """Both optimizers of a model, with rates that scale from 0 to 1 together."""

    def __init__(self, model, matrix_rate, other_rate):
        matrices = [p for name, p in model.named_parameters()
                    if p.dim() == 2 and "embed" not in name]
        known = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in known]
        self.matrix_rate, self.other_rate = matrix_rate, other_rate
        self.muon = Muon(matrices)
        self.adam = torch.optim.Adam(others, lr=other_rate, betas=(0.9, 0.98), eps=1e-9)

    def step(self, scale):
        self.muon.step(self.matrix_rate * scale)
        for group in self.adam.param_groups:
            group["lr"] = self.other_rate * scale
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        for group in self.muon.groups.values():
            for parameter in group:
                parameter.grad = None
